"""OpenAI's form, with OpenAI's own client, against a real server and a real worker."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import openai
import pytest

from tests.support.processes import eventually

ANSWER = "one two three four five six seven eight nine ten"
SLOW = {"outputs": {"answer": ANSWER}, "piece_characters": 6, "piece_interval_seconds": 0.06}
USER = [{"role": "user", "content": "asked in the form of OpenAI"}]
#: A program with a history and instructions of its own.
TALK = {
    "signature": "rules: str, history: dspy.History, question -> answer",
    "chat": {"system": "rules"},
    "variants": {"control": {"model": "control"}},
}


def client_of(server, **options):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", **{"max_retries": 0, **options})


def says(text):
    return [{"role": "user", "content": text}]


pytestmark = pytest.mark.usefixtures("shared_worker")


def test_a_completion_is_the_answer_of_the_program(shared_door):
    client = client_of(shared_door)
    raw = client.chat.completions.with_raw_response.create(model="qa", messages=says("plain"), temperature=0.2, seed=3)
    found = raw.parse()
    assert raw.headers["x-dspyq-ignored"] == "seed, temperature"
    assert found.choices[0].message.content == "echo:plain"
    assert (found.choices[0].finish_reason, found.model, found.object) == ("stop", "qa", "chat.completion")
    assert found.usage.total_tokens > 0
    assert shared_door.look(found.id)["outputs"] == {"answer": "echo:plain"}


def test_a_stream_comes_in_pieces_and_ends_with_its_reason_and_its_usage(shared_door, endpoint):
    endpoint.script(**SLOW)
    options = {"include_usage": True}
    chunks = list(
        client_of(shared_door).chat.completions.create(
            model="qa", messages=says("streamed for OpenAI"), stream=True, stream_options=options
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == ANSWER
    assert sum(map(bool, texts)) > 2
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1
    again = client_of(shared_door).chat.completions.create(
        model="qa", messages=says("streamed for OpenAI"), stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in again) == ANSWER
    assert endpoint.calls() == 1


def test_models_are_the_programs_that_chat_and_their_variants(shared_door):
    client = client_of(shared_door)
    assert [model.id for model in client.models.list()] == ["qa", "qa:control"]
    assert client.models.retrieve("qa:control").owned_by == "dspyq"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    chosen = client.chat.completions.create(model="qa:control", messages=says("of a variant"), user="user-1")
    assert chosen.choices[0].message.content == "echo:of a variant"


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"n": 2}, "n"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "messages[0].content[0].type",
        ),
    ],
)
def test_a_parameter_that_cannot_be_served_is_named(shared_door, options, parameter):
    with pytest.raises(openai.BadRequestError) as refused:
        client_of(shared_door).chat.completions.create(**{"model": "qa", "messages": USER, **options})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", parameter)


def test_errors_have_the_form_of_openai(shared_door, endpoint):
    client = client_of(shared_door)
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=USER)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError) as system:
        client.chat.completions.create(model="qa", messages=[{"role": "system", "content": "be kind"}, *USER])
    assert system.value.param == "messages"
    endpoint.script(containing="fails in a completion", status=400)
    with pytest.raises(openai.InternalServerError) as failed:
        client.chat.completions.create(model="qa", messages=says("fails in a completion"))
    assert failed.value.code == "prediction_failed"
    assert failed.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.APIError) as broken:
        list(client.chat.completions.create(model="qa", messages=says("fails in a completion, streamed"), stream=True))
    assert broken.value.body["code"] == "prediction_failed"


def test_a_client_that_retries_joins_the_run_and_one_error_that_no_retry_helps_is_sent_once(
    door, settings_file, endpoint
):
    server = door(settings_file({"serve": {"wait_seconds": 0.5}}))
    endpoint.script(latency_seconds=2, containing="slow")
    found = client_of(server, max_retries=8).chat.completions.create(model="qa", messages=says("slow"))
    assert found.choices[0].message.content == "echo:slow"
    assert endpoint.calls() == 1
    retried = server.metric("dspyq_http_requests_total", route="/v1/chat/completions", status="503")
    assert retried >= 1
    with pytest.raises(openai.BadRequestError):
        client_of(server, max_retries=2).chat.completions.create(model="qa", messages=USER, n=2)
    assert server.metric("dspyq_http_requests_total", route="/v1/chat/completions", status="400") == 1


def test_a_client_that_hangs_up_ends_its_run(door, settings_file, endpoint, client):
    server = door(settings_file({"serve": {"hangup_seconds": 0.2}}))
    endpoint.hold()
    with client_of(server).chat.completions.create(model="qa", messages=says("left"), stream=True) as stream:
        next(iter(stream))
        endpoint.wait_for_calls(1)
    eventually(lambda: client.zcard("dspy:v1:leases") == 0)
    endpoint.release()


def test_a_conversation_has_its_history_and_its_instructions(door, worker, settings_file, endpoint):
    settings = settings_file({"programs": {"qa": None, "talk": TALK}})
    worker(settings)
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "who was first"},
        {"role": "assistant", "content": "the hen was"},
        {"role": "user", "content": [{"type": "text", "text": "and then"}]},
    ]
    found = client_of(door(settings)).chat.completions.create(model="talk", messages=messages)
    assert found.choices[0].message.content
    (sent,) = endpoint.requests()
    assert all(text in sent.text for text in ("be brief", "who was first", "the hen was", "and then"))


@pytest.mark.long
def test_the_npm_package_completes_streams_and_retries(shared_door, endpoint, tmp_path):
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no npm and node here")
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "openai@6"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot get the package: {installed.stderr[-200:]}")
    endpoint.script(**SLOW | {"containing": "of node"})
    script = Path(__file__).with_name("chat_client.mjs")
    shutil.copy(script, tmp_path)
    done = subprocess.run(
        [node, script.name, f"{shared_door.url}/v1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout)
    assert found["plain"] == "echo:by node"
    assert (found["streamed"], found["pieces"] > 2) == (ANSWER, True)
    assert (found["status"], found["param"], found["requests"]) == (400, "n", 1)
