"""Errors in replies of status 200: what they count as."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from dspy import lm15

from dspyq.programs.failures import Failure
from dspyq.programs.provider_call import ProviderCall
from dspyq.programs.runner import Runner
from dspyq.programs.stated_errors import find_stated_error
from tests.support.endpoint import Endpoint

ANSWER = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
CUT = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "error"}


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, 429),
        ({"error": {"code": "429", "message": "slow down"}}, 429),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow down"}}, 429),
        ({"error": {"type": "rate_limit_error", "message": "slow down"}}, 429),
        ({"error": {"status": "RESOURCE_EXHAUSTED", "code": 8, "message": "slow down"}}, 429),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, 402),
        ({"error": {"code": 402, "message": "pay"}}, 402),
        ({"error": {"code": 401, "message": "who?"}}, 401),
        ({"error": {"code": "invalid_api_key"}}, 401),
        ({"error": {"code": 403, "message": "no"}}, 403),
        ({"error": {"code": 400, "message": "no"}}, 400),
        ({"error": {"type": "invalid_request_error", "code": None, "message": "no"}}, 400),
        ({"error": {"code": 503, "message": "down"}}, 503),
        ({"error": {"type": "overloaded_error", "message": "down"}, "type": "error"}, 503),
        ({"error": {"message": "something"}}, 500),
        ({"error": {"code": 0, "message": "something"}}, 500),
        ({"error": {"message": "slow down"}, "code": 429}, 429),
        ({"error": "something"}, 500),
        ({"error": "rate limit"}, 429),
        ({"error": True, "message": "something", "code": 502}, 502),
        ({"object": "error", "message": "down", "code": 503, "param": None}, 503),
        ({"detail": "something"}, 500),
        ([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], 429),
        ({"choices": [CUT | {"error": {"code": 429, "message": "slow down"}}]}, 429),
        ({"choices": [ANSWER | {"error": {"code": "server_error"}}]}, 500),
        ({"choices": [CUT]}, 500),
        ({"choices": [{"message": {"content": None, "error": {"code": 429}}}]}, 429),
        ({"error": {"code": 429.0}}, 429),
        ({"error": [{"code": 429}]}, 429),
        ({"error": {"error": {"code": 429}}}, 429),
        ({"error": {"status_code": "429"}}, 429),
        ({"errors": [{"code": 401, "message": "who?"}]}, 401),
        ({"success": False, "errors": [{"code": 429}], "result": None, "messages": []}, 429),
        ({"statusCode": 429, "message": "slow down"}, 429),
        ({"status_code": 401, "detail": "who?"}, 401),
        ({"error_code": 18, "error_msg": "slow down"}, 500),
    ],
)
def test_an_error_in_the_body_counts_as_its_status_would(reply: Any, status: int) -> None:
    stated = find_stated_error(json.dumps(reply, separators=(",", ":")).encode())
    assert stated is not None
    assert stated.status == status
    assert isinstance(json.loads(stated.body)["error"]["message"], str)
    assert not stated.is_billed


@pytest.mark.parametrize(
    "reply",
    [
        {"choices": [ANSWER]},
        {"choices": [ANSWER], "error": None},
        {"choices": [ANSWER, CUT], "error": None},
        {"choices": [ANSWER | {"error": None}]},
        {"choices": [], "usage": {}},
        {"output": [], "error": None, "status": "completed"},
        {"access_token": "x", "expires_in": 1},
        {},
        [],
        "error",
    ],
)
def test_what_states_no_error_is_left_as_it_is(reply: Any) -> None:
    assert find_stated_error(json.dumps(reply).encode()) is None


def test_a_body_that_is_no_json_states_nothing() -> None:
    assert find_stated_error(b'<html>"error"</html>') is None


def failure_of(runner: Runner) -> Failure:
    engine = runner._lm.engine  # noqa: SLF001 - what a failure counts as shows nowhere else
    body = {"model": "openai/m", "messages": [{"role": "user", "content": "?"}], "max_tokens": 100}
    call = ProviderCall(engine, lm15.request_from_openai_chat(body))
    with pytest.raises(lm15.LM15Error) as raised:
        call.attempt(5)
    return call.classify(raised.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, "asks_to_wait"),
        ({"code": "rate_limit_exceeded"}, "asks_to_wait"),
        ({"code": "insufficient_quota"}, "account"),
        ({"code": 401}, "account"),
        ({"code": 402}, "account"),
        ({"code": 400}, "lasting"),
        ({"code": 429, "message": "Request too large for m on tokens per min (TPM)"}, "lasting"),
        ({"code": 502}, "ill"),
        ({"message": "something"}, "ill"),
    ],
)
def test_a_stated_error_is_classified_and_free(
    build: Callable[..., Runner], endpoint: Endpoint, error: dict[str, Any], kind: str
) -> None:
    runner = build()
    for reply in ({"error": error}, {"choices": [CUT | {"error": error}]}):
        endpoint.clear()
        endpoint.script(body=json.dumps(reply))
        failure = failure_of(runner)
        assert (failure.kind, failure.is_billed) == (kind, False)


def test_a_stated_error_states_the_wait(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    runner = build()
    endpoint.script(body=json.dumps({"error": {"code": 429}}), headers={"retry-after": "7"}, times=1)
    endpoint.script(body=json.dumps({"error": {"code": 429, "metadata": {"retry_after": 9}}}), times=1)
    assert [failure_of(runner).retry_after_seconds for _ in range(2)] == [7, 9]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        {"prompt_tokens": "3", "completion_tokens": 4.0},
        {"input_tokens": 3, "output_tokens": 4},
        {"prompt_tokens": 3, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 3}},
    ],
)
def test_a_stated_error_beside_a_usage_is_billed_by_it(
    build: Callable[..., Runner], endpoint: Endpoint, usage: dict[str, Any]
) -> None:
    endpoint.script(body=json.dumps({"choices": [CUT], "usage": usage}))
    failure = failure_of(build())
    assert (failure.is_billed, failure.prompt_tokens, failure.completion_tokens) == (True, 3, 4)
    assert failure.cost_usd == pytest.approx((3 * 1.0 + 4 * 2.0) / 1e6)


def test_a_reply_that_dspy_cannot_read_is_billed_by_its_usage(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    endpoint.script(body=json.dumps({"choices": [ANSWER, ANSWER | {"index": 1}], "usage": usage}))
    failure = failure_of(build())
    assert (failure.is_billed, failure.prompt_tokens, failure.completion_tokens) == (True, 3, 4)
    assert failure.cost_usd == pytest.approx((3 * 1.0 + 4 * 2.0) / 1e6)


@pytest.mark.parametrize("usage", [None, {}, "none", {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}])
def test_a_stated_error_beside_no_usage_is_free(build: Callable[..., Runner], endpoint: Endpoint, usage: Any) -> None:
    endpoint.script(body=json.dumps({"choices": [CUT], "usage": usage}))
    assert not failure_of(build()).is_billed


def test_an_implausible_usage_beside_an_error_is_charged_at_the_bound(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    runner = build()
    for usage in ({"prompt_tokens": 3}, {"prompt_tokens": 3, "completion_tokens": 10**8}):
        endpoint.clear()
        endpoint.script(body=json.dumps({"choices": [CUT], "usage": usage}))
        failure = failure_of(runner)
        assert (failure.is_billed, failure.cost_usd) == (True, None)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
@pytest.mark.parametrize("body", ["", "{}", "<html>moved</html>"])
def test_a_redirect_is_free_and_lasts_and_names_the_setting(
    build: Callable[..., Runner], endpoint: Endpoint, status: int, body: str
) -> None:
    location = "https://other.example/v1/chat?key=secret"
    endpoint.script(status=status, body="" if status == 304 else body, headers={"location": location})
    failure = failure_of(build())
    assert (failure.kind, failure.is_billed) == ("lasting", False)
    assert f"redirects (HTTP {status}) to https://other.example, " in str(failure.error)
    assert "models.m.api_base" in str(failure.error)
    assert "secret" not in str(failure.error)
