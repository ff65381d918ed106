"""Lines of a batch, written and read by the codec of live calls, in the forms of OpenAI, Anthropic and Gemini."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from dspy import lm15

from dspyq.config.models import Model
from dspyq.config.secrets import process_secrets
from dspyq.errors import ConfigurationError
from dspyq.programs.engine import Engine
from dspyq.programs.provider_call import ProviderCall

MODELS = {
    "openai": "openai/gpt-4o-mini",
    "anthropic": "anthropic/claude-sonnet-4-5",
    "gemini": "gemini/gemini-2.5-flash",
}
REPLIES: dict[str, dict[str, Any]] = {
    "openai": {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "blue"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    },
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "blue"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1000, "output_tokens": 100},
    },
    "gemini": {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "blue"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100},
        "modelVersion": "gemini-2.5-flash",
    },
}
#: The words of each provider for an error of a status.
WORDS = {
    "openai": {400: "context_length_exceeded", 429: "rate_limit_exceeded", 503: "server_error"},
    "anthropic": {400: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error"},
    "gemini": {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"},
}
MESSAGES = [{"role": "user", "content": "The colour of the sky?"}]


@pytest.fixture(params=list(MODELS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("LINES_KEY", "key-of-the-lines")
    model = Model(
        name="fast",
        model=MODELS[name],
        api_key_env="LINES_KEY",
        input_usd_per_million_tokens=1,
        output_usd_per_million_tokens=10,
    )
    engine = Engine(model)
    yield engine
    engine.close()
    process_secrets.cache_clear()


@pytest.mark.parametrize(("other", "fitting"), [("gemini", "openai"), ("anthropic", "openai")])
def test_a_batch_interface_that_takes_other_requests_is_one_line_before_any_call(other: str, fitting: str) -> None:
    model = Model(name="fast", model=MODELS["openai"], batch=other)
    with pytest.raises(ConfigurationError) as raised:
        Engine(model)
    assert str(raised.value) == (
        f'models.fast.batch: "{other}" is no batch interface for openai/gpt-4o-mini; state "{fitting}" or "off", or '
        "leave it out"
    )


def request_of(name: str, **options: Any) -> Any:
    return lm15.request_from_openai_chat({"model": MODELS[name], "messages": MESSAGES, **options})


def error_of(name: str, status: int) -> dict[str, Any]:
    word = WORDS[name][status]
    if name == "gemini":
        return {"error": {"code": status, "message": "not today", "status": word}}
    error = {"message": "not today", "type": word}
    return {"type": "error", "error": error} if name == "anthropic" else {"error": error | {"code": word}}


def test_a_line_has_the_body_of_a_live_request_without_stream_and_tier(name: str, engine: Engine) -> None:
    body = json.loads(engine.batch_wire.line_body(request_of(name, max_tokens=7)) or b"")
    assert not {"stream", "stream_options", "service_tier"} & body.keys()
    where = {"openai": "messages", "anthropic": "messages", "gemini": "contents"}[name]
    assert MESSAGES[0]["content"] in json.dumps(body[where])


def test_the_access_is_that_of_live_calls(name: str, engine: Engine) -> None:
    access = engine.batch_wire.access()
    dialects = {"openai": "openai-chat", "anthropic": "anthropic", "gemini": "gemini"}
    assert access.dialect == dialects[name]
    assert any("key-of-the-lines" in value for _, value in access.headers)
    assert "key-of-the-lines" not in repr(access)
    assert access.base_url.startswith("https://")
    assert access.model == MODELS[name].partition("/")[2]


def test_a_reply_of_a_line_is_billed_at_half_and_loads_again_as_a_live_one(name: str, engine: Engine) -> None:
    reply, dumped = engine.batch_wire.answer(200, REPLIES[name])
    assert (reply.prompt_tokens, reply.completion_tokens) == (1000, 100)
    assert reply.cost_usd == pytest.approx((1000 * 1 + 100 * 10) / 1e6 / 2)
    assert dumped is not None
    assert ProviderCall.load(dumped).text == reply.response.text == "blue"


@pytest.mark.parametrize(("status", "kind"), [(400, "lasting"), (429, "asks_to_wait"), (503, "ill")])
def test_an_error_of_a_line_is_that_of_a_live_call(name: str, engine: Engine, status: int, kind: str) -> None:
    with pytest.raises(lm15.ProviderError, match="not today") as raised:
        engine.batch_wire.answer(status, error_of(name, status))
    failure = engine.batch_wire.classify(raised.value)
    assert (failure.kind, failure.is_billed, failure.cost_usd) == (kind, False, None)


def test_an_error_that_states_a_usage_is_billed_by_it(name: str, engine: Engine) -> None:
    usage = {key: value for key, value in REPLIES[name].items() if key.startswith("usage")}
    with pytest.raises(lm15.ProviderError) as raised:
        engine.batch_wire.answer(400, error_of(name, 400) | usage)
    failure = engine.batch_wire.classify(raised.value)
    assert failure.is_billed
    assert failure.cost_usd == pytest.approx(0.001)


def test_a_success_that_states_an_error_is_that_error(name: str, engine: Engine) -> None:
    with pytest.raises(lm15.ProviderError, match="not today"):
        engine.batch_wire.answer(200, error_of(name, 400))


def test_a_key_that_a_line_echoes_is_removed(name: str, engine: Engine) -> None:
    echoed = json.loads(json.dumps(REPLIES[name]).replace("blue", "key-of-the-lines"))
    reply, dumped = engine.batch_wire.answer(200, echoed)
    assert "key-of-the-lines" not in str(reply.response)
    assert b"key-of-the-lines" not in (dumped or b"")
