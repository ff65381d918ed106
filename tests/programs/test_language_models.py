"""Every call of a model is made once, bounded, priced and written down."""

from __future__ import annotations

import copy
import hashlib
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest

from dspyq.errors import ConfigurationError, PredictionFailed, TransientPredictionFailure
from dspyq.guards.call_records import CallRecord, ProgramAnswer, total_cost_usd
from dspyq.programs.runner import Runner
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until

QUESTION = {"question": "hi"}


def test_a_call_is_recorded_with_the_tokens_the_provider_counted_and_its_cost(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    answer = build().run(QUESTION)
    (call,) = answer.calls
    counts = endpoint.counts()
    assert (counts.calls, counts.prompt_tokens, counts.completion_tokens) == (
        1,
        call.prompt_tokens,
        call.completion_tokens,
    )
    assert (call.model, call.outcome) == ("m", "ok")
    assert call.duration_seconds < 60
    assert answer.cost_usd == pytest.approx((1.0 * counts.prompt_tokens + 2.0 * counts.completion_tokens) / 1e6)


def test_without_stated_prices_the_bundled_table_prices_a_call(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    table = {"input_usd_per_million_tokens": None, "output_usd_per_million_tokens": None}
    answer = build(model={"model": "openai/gpt-4o-mini", **table}).run(QUESTION)
    counts = endpoint.counts()
    assert answer.cost_usd == pytest.approx((0.15 * counts.prompt_tokens + 0.6 * counts.completion_tokens) / 1e6)


def test_zero_is_a_price(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    endpoint.script(usage=False)
    free = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 0}
    assert build(model=free).run(QUESTION).cost_usd == 0


def test_an_answered_call_of_unknown_usage_has_no_known_cost(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    endpoint.script(usage=False)
    answer = build().run(QUESTION)
    assert answer.calls[0].prompt_tokens is None
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cost_usd) == (0, 0, None)


def test_a_failed_call_beside_answered_ones_leaves_the_cost_known() -> None:
    calls = (
        CallRecord("m", "timeout", 1.0),
        CallRecord("m", "ok", 1.0, 10, 5, 0.25),
        CallRecord("m", "ok", 1.0, 1, 1, 0.5),
    )
    answer = ProgramAnswer({}, calls)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cost_usd) == (11, 6, 0.75)
    assert total_cost_usd([CallRecord("m", "ok", 1.0)]) is None


def test_costs_add_up_as_the_books_have_them() -> None:
    thrice = [CallRecord("m", "ok", 1.0, cost_usd=0.0000101)] * 3
    assert total_cost_usd(thrice) == 0.0000303  # and not 0.000030299999999999998


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (
            {"input_usd_per_million_tokens": None, "output_usd_per_million_tokens": None},
            "models.m.input_usd_per_million_tokens: the price of openai/m is not in DSPy's table",
        ),
        (
            {"api_key_env": "NO_SUCH_VARIABLE"},
            "models.m.api_key_env: the environment variable NO_SUCH_VARIABLE is not set",
        ),
        ({"model": "anthropic/claude-sonnet-4-5", "api_base": None}, "models.m.api_key_env: anthropic needs a key"),
        ({"model": "nowhere/x"}, "models.m.model: could not read 'nowhere/x'"),
        ({"model": "openai/gpt-5"}, "models.m: .*max_tokens >= 16000"),
        ({"parameters": {"temperature": 1}}, "models.m.parameters: temperature cannot be set here"),
        ({"parameters": {"timeout": 5}}, "models.m: .*timeout"),
        ({"parameters": {"stop": 5}}, "models.m.parameters: "),
    ],
)
def test_a_model_that_could_not_be_called_is_refused_at_start(
    build: Callable[..., Runner], model: dict[str, object], fault: str
) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        build(model=model)


def test_a_local_endpoint_needs_no_key(build: Callable[..., Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert build().run(QUESTION).outputs == {"answer": "echo:hi"}


def test_the_environments_proxy_is_used(
    build: Callable[..., Runner], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", endpoint.url.removesuffix("/v1"))
    runner = build(model={"api_base": "http://nowhere.invalid/v1"})
    assert runner.run({"question": "hi"}).outputs["answer"]
    assert endpoint.counts().calls == 1


def test_the_key_and_the_parameters_reach_the_endpoint(
    build: Callable[..., Runner], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    settings = {
        "api_key_env": "SOME_KEY",
        "max_tokens": 77,
        "temperature": 0.25,
        "parameters": {"top_p": 0.5, "seed": 3},
    }
    build(model=settings).run(QUESTION)
    (request,) = endpoint.requests()
    assert request.headers["authorization"] == f"sha256:{hashlib.sha256(b'Bearer s3cret').hexdigest()[:16]}"
    assert request.model == "m"
    expected = {"max_completion_tokens": 77, "temperature": 0.25, "top_p": 0.5, "seed": 3}
    assert {name: request.parameters.get(name) for name in expected} == expected


@pytest.mark.parametrize("fault", ["trickle", "hang"])
def test_the_timeout_is_a_wall_clock(build: Callable[..., Runner], endpoint: Endpoint, fault: str) -> None:
    runner = build(model={"timeout_seconds": 0.4})
    runner.run(QUESTION)  # so that the connection is a used one
    endpoint.script(fault=fault, times=1)
    started = time.monotonic()
    with pytest.raises(
        TransientPredictionFailure, match=r"no answer within 0\.4 s \(models\.m\.timeout_seconds\)"
    ) as raised:
        runner.run(QUESTION)
    assert 0.35 < time.monotonic() - started < 30
    (call,) = raised.value.calls
    assert call == CallRecord("m", "timeout", call.duration_seconds)
    assert runner.run({"question": "next"}).outputs == {"answer": "echo:next"}


def test_a_host_that_takes_no_connection_is_given_up_within_the_wall_clock(build: Callable[..., Runner]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as busy,
        socket.create_connection(busy.getsockname()),  # fills its queue, and nobody accepts
    ):
        host, port = busy.getsockname()
        runner = build(model={"api_base": f"http://{host}:{port}/v1", "timeout_seconds": 0.3})
        started = time.monotonic()
        with pytest.raises(TransientPredictionFailure, match="no answer within"):
            runner.run(QUESTION)
        assert 0.25 < time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ({"status": 500}, "server"),
        ({"status": 503}, "server"),
        ({"status": 429}, "rate_limit"),
        ({"status": 408}, "timeout"),
        ({"fault": "cut"}, "transport"),
        ({"fault": "disconnect"}, "transport"),
    ],
)
def test_what_passes_is_a_transient_failure_and_recorded(
    build: Callable[..., Runner], endpoint: Endpoint, script: dict[str, object], outcome: str
) -> None:
    endpoint.script(times=1, **script)
    runner = build()
    with pytest.raises(TransientPredictionFailure) as raised:
        runner.run(QUESTION)
    (call,) = raised.value.calls
    assert call == CallRecord("m", outcome, call.duration_seconds)
    assert endpoint.calls() == 1
    assert runner.run(QUESTION).outputs == {"answer": "echo:hi"}


@pytest.mark.parametrize(
    ("script", "outcome", "error"),
    [
        ({"status": 401}, "auth", "LMAuthError"),
        ({"status": 400}, "invalid_request", "LMInvalidRequestError"),
        ({"status": 429, "error_code": "insufficient_quota"}, "billing", "LMBillingError"),
        ({"status": 400, "error_code": "context_length_exceeded"}, "context_length", "ContextWindowExceededError"),
        ({"fault": "html"}, "provider", "LMProviderError"),
    ],
)
def test_what_does_not_pass_is_a_lasting_failure_and_recorded(
    build: Callable[..., Runner], endpoint: Endpoint, script: dict[str, object], outcome: str, error: str
) -> None:
    endpoint.script(times=1, **script)
    with pytest.raises(PredictionFailed, match=f"^{error}: ") as raised:
        build().run(QUESTION)
    assert not raised.value.retryable
    assert [call.outcome for call in raised.value.calls] == [outcome]


def test_a_rate_limit_states_the_time_of_the_next_try(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    endpoint.script(times=1, status=429, headers={"retry-after": "7"})
    with pytest.raises(TransientPredictionFailure, match=r"^LMRateLimitError: ") as raised:
        build().run(QUESTION)
    assert raised.value.retry_after_seconds == 7


def test_more_calls_run_at_once_than_lm15_has_connections_by_itself(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    runner = build(model={"timeout_seconds": 300})
    endpoint.hold()
    with ThreadPoolExecutor(130) as pool:
        answers = [pool.submit(runner.run, QUESTION) for _ in range(130)]
        try:
            endpoint.wait_for_calls(130)
        finally:
            endpoint.release()
    assert all(answer.result().calls for answer in answers)


@pytest.mark.parametrize(
    ("model", "structured", "expected"),
    [
        ("openai/m", None, None),
        ("openai/m", True, "json_schema"),
        ("openai/m", False, None),
        ("openai/gpt-4o-mini", None, "json_schema"),
        ("openai/gpt-4o-mini", False, "json_object"),
        ("hosted_vllm/m", True, "json_schema"),
    ],
)
def test_a_json_schema_is_sent_where_the_endpoint_takes_one(
    build: Callable[..., Runner], endpoint: Endpoint, model: str, structured: object, expected: str | None
) -> None:
    table = {"model": model, "structured_outputs": structured}
    runner = build(model=table, adapter="JSONAdapter", signature="question -> n: int")
    assert isinstance(runner.run(QUESTION).outputs["n"], int)
    (request,) = endpoint.requests()
    assert request.parameters.get("response_format", {}).get("type") == expected


@pytest.mark.parametrize(
    "model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "openai/m"]
)
def test_adapters_see_the_same_capabilities_as_with_dspys_own_engine(build: Callable[..., Runner], model: str) -> None:
    own = dspy.LM(model, engine="lm15", cache=False)
    ours = build(model={"model": model})._lm  # noqa: SLF001 - DSPy's adapters read it, callers never do
    names = ("supports_function_calling", "supports_reasoning", "supports_response_schema", "supported_params")
    assert {name: getattr(ours, name) for name in names} == {name: getattr(own, name) for name in names}


def test_a_copied_program_uses_the_same_connections(build: Callable[..., Runner]) -> None:
    lm = build()._lm  # noqa: SLF001 - as modules like BestOfN copy it
    assert copy.deepcopy(lm).engine is lm.engine


def test_a_call_outside_of_any_prediction_is_refused_before_it_is_made(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    runner = build(**{"class": "tests.programs.sample_programs:PlainThread"})
    with pytest.raises(PredictionFailed, match="a model was called outside of its prediction"):
        runner.run(QUESTION)
    assert endpoint.calls() == 0


def test_threads_left_behind_by_a_failed_prediction_make_no_further_calls(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    runner = build(**{"class": "tests.programs.sample_programs:FanOfTwice"})
    endpoint.script(times=1, latency_seconds=0.1, status=500)
    endpoint.script(latency_seconds=0.3)
    with pytest.raises(PredictionFailed):
        runner.run(QUESTION)
    wait_until(lambda: endpoint.counts().in_flight == 0, 60, "the calls under way to end")
    time.sleep(0.2)
    assert endpoint.calls() <= 4
