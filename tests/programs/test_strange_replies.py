"""A reply was paid for, whatever stands in it: it is settled by its usage, and its text is served where it can be."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dspyq.programs.repair import mended
from dspyq.programs.runner import Runner
from tests.support.endpoint import Endpoint

QUESTION = {"question": "hi"}
_TEXT = "[[ ## answer ## ]]\nhello\n\n[[ ## completed ## ]]"


def reply(usage: str = '{"prompt_tokens": 10, "completion_tokens": 5}', text: str = _TEXT, beside: str = "") -> str:
    message = f'{{"role": "assistant", "content": {json.dumps(text)}{beside}}}'
    choice = f'{{"index": 0, "finish_reason": "stop", "message": {message}}}'
    return f'{{"id": "1", "model": "m", "choices": [{choice}], "usage": {usage}}}'


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ('{"prompt_tokens": "10", "completion_tokens": "5", "total_tokens": "15"}', (10, 5)),
        ('{"prompt_tokens": 10.0, "completion_tokens": 4.5}', (10, 5)),
        (
            '{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": null, "prompt_tokens_details": "none"}',
            (10, 5),
        ),
        ('{"prompt_tokens": 10, "completion_tokens": 5, "completion_tokens_details": [1]}', (10, 5)),
        ('{"prompt_tokens": -1, "completion_tokens": 5, "total_tokens": 15}', (10, 5)),
        ('{"prompt_tokens": NaN, "completion_tokens": 5, "total_tokens": 15}', (10, 5)),
        ('{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": -3}', (10, 5)),
        ('{"prompt_tokens": true, "completion_tokens": 5}', (None, None)),
        ('{"prompt_tokens": 10, "completion_tokens": 123456789012345678901234567890}', (None, None)),
        ('{"prompt_tokens": 10, "completion_tokens": Infinity}', (None, None)),
        ('"ten"', (None, None)),
        ("[10, 5]", (None, None)),
        ("null", (None, None)),
        ("{}", (None, None)),
    ],
)
def test_an_answer_is_served_and_settled_by_its_usage(
    build: Callable[..., Runner], endpoint: Endpoint, usage: str, tokens: tuple[int | None, int | None]
) -> None:
    endpoint.script(body=reply(usage))
    answer = build().run(QUESTION)
    assert answer.outputs == {"answer": "hello"}
    (call,) = answer.calls
    assert (call.prompt_tokens, call.completion_tokens) == tokens
    assert call.cost_usd == (None if tokens[0] is None else pytest.approx(20e-6))


@pytest.mark.parametrize(
    ("broken", "text"),
    [("\ud83d lost", "\ufffd lost"), ("\udc00", "\ufffd"), ("\U0001f600 whole", "\U0001f600 whole")],
)
def test_half_of_a_surrogate_pair_is_a_replacement_character(
    build: Callable[..., Runner], endpoint: Endpoint, broken: str, text: str
) -> None:
    endpoint.script(body=reply(text=_TEXT.replace("hello", broken)))
    answer = build().run(QUESTION)
    assert answer.outputs == {"answer": text}
    assert answer.cost_usd == pytest.approx(20e-6)


def test_half_of_a_surrogate_pair_within_a_json_answer_is_a_replacement_character(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    endpoint.script(body=reply(text='{"answer": "\\ud800 lost"}'))
    answer = build(adapter="JSONAdapter").run(QUESTION)
    assert answer.outputs == {"answer": "\ufffd lost"}


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "NaN", "1e999"])
def test_a_number_that_json_cannot_hold_loses_no_reply(
    build: Callable[..., Runner], endpoint: Endpoint, number: str
) -> None:
    endpoint.script(body=reply(beside=f', "provider_specific_fields": {{"n": {number}}}'))
    assert build().run(QUESTION).cost_usd == pytest.approx(20e-6)


def test_a_logprob_that_is_no_number_is_left_out(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    token = '{"token": "a", "logprob": NaN, "bytes": null, "top_logprobs": []}'
    body = reply().replace('"finish_reason"', f'"logprobs": {{"content": [{token}]}}, "finish_reason"')
    endpoint.script(body=body)
    assert build().run(QUESTION).cost_usd == pytest.approx(20e-6)


def test_a_reply_that_can_be_read_is_left_as_it_is() -> None:
    assert mended(reply().encode()) is None
    assert mended(b"<html>") is None
    assert mended(b"\xff\xfe") is None


def test_what_is_mended_is_the_usage_and_the_text_alone() -> None:
    body: dict[str, Any] = json.loads(reply('{"prompt_tokens": "3", "cost": 0.25, "service_tier": "flex"}'))
    repaired = json.loads(mended(json.dumps(body).encode()) or b"")
    assert repaired == body | {"usage": {"prompt_tokens": 3, "cost": 0.25, "service_tier": "flex"}}


@pytest.mark.parametrize("error", ["null", '""', "{}", '{"code": 0, "message": "success"}', '{"code": "200"}'])
def test_an_error_that_states_success_beside_an_answer_is_none(
    build: Callable[..., Runner], endpoint: Endpoint, error: str
) -> None:
    endpoint.script(body=reply().replace('"id": "1"', f'"id": "1", "error": {error}'))
    answer = build().run(QUESTION)
    assert answer.outputs == {"answer": "hello"}
    assert answer.cost_usd == pytest.approx(20e-6)
