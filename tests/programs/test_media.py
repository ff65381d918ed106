"""Images, audio and files of a request are bounded by what the model's table states of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dspyq.config.models import Model
from dspyq.programs.media import measure
from dspyq.programs.runner import Runner
from tests.support.endpoint import Endpoint

MODEL = Model(name="m", model="openai/m", image_tokens=1000)


def request(*parts: dict[str, str]) -> dict[str, object]:
    return {"messages": [{"role": "user", "parts": [{"type": "text", "text": "hi"}, *parts]}]}


def test_an_image_counts_as_its_tokens_and_not_by_the_bytes_of_its_data() -> None:
    media = measure(
        request({"type": "image", "data": "A" * 5000}, {"type": "image", "url": "https://a.b/c.png"}), MODEL
    )
    assert (media.tokens, media.data_bytes, media.unbounded_part) == (2000, 5000, None)


@pytest.mark.parametrize(("kind", "setting"), [("audio", "audio_tokens"), ("document", "file_tokens")])
def test_audio_and_files_have_a_bound_where_it_is_stated_alone(kind: str, setting: str) -> None:
    part = {"type": kind, "data": "AAAA"}
    assert f"set models.m.{setting}" in str(measure(request(part), MODEL).unbounded_part)
    stated = MODEL.model_copy(update={setting: 70})
    assert measure(request(part), stated).tokens == 70


def test_an_image_reaches_the_model_and_is_an_output(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    runner = build(signature="picture: dspy.Image, more: list[dspy.Image], question -> answer")
    url = "https://example.com/a.png"
    answer = runner.run({"picture": url, "more": [{"url": "data:image/png;base64,AAAA"}], "question": "hi"})
    assert answer.outputs == {"answer": "echo:hi"}
    (asked,) = endpoint.requests()
    parts = [part for message in asked.messages if isinstance(message["content"], list) for part in message["content"]]
    assert [part["image_url"]["url"] for part in parts if part["type"] == "image_url"] == [
        url,
        "data:image/png;base64,AAAA",
    ]
