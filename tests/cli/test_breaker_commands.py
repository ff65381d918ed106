"""``dspyq breaker``: what it shows, and an operator's commands as workers see them."""

from __future__ import annotations

import json

import pytest

from dspyq.config.settings import load_settings
from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.rate_limit import RateLimiter, RateLimitPolicy
from dspyq.store.scripts import run_together


@pytest.fixture
def two_models(settings_file):
    return settings_file(
        {
            "models": {"control": {"requests_per_second": 5, "burst_requests": 2, "tokens_per_minute": 60_000}},
            "breaker": {"failure_threshold": 2, "reset_timeout_seconds": 100},
        },
        challenger=0.5,
    )


@pytest.fixture
def worker(two_models, redis_server):
    """The breaker and the limiter of ``control`` as a worker has them."""
    settings = load_settings(two_models)
    model = settings.models["control"]
    client = redis_server.client(decode_responses=False)
    return (
        FleetBreaker(client, "control", BreakerPolicy.of(settings, model)),
        RateLimiter(client, "control", RateLimitPolicy.of(settings, model)),
        client,
    )


def state(worker):
    breaker, _, client = worker
    return run_together(client, [breaker.read()])[0]


def test_show_prints_each_models_breaker_gate_and_limit(dspyq, two_models, worker):
    breaker, limiter, _ = worker
    breaker.report("failed", "a", 0)
    row = json.loads(dspyq("breaker", "show", "control", "--json", settings=two_models).stdout)[0]
    assert row == {
        "model": "control",
        "state": "closed",
        "is_forced": False,
        "failures": 1,
        "failure_threshold": 2,
        "open_seconds": 0,
        "openings": 0,
        "gate_reason": None,
        "gate_seconds": 0,
        "requests_per_second": 5,
        "burst_requests": 2,
        "tokens_per_minute": 60_000,
    }
    breaker.report("failed", "b", 0)
    limiter.gate.close("account")
    row, other = json.loads(dspyq("breaker", "show", "--json", settings=two_models).stdout)
    assert (row["state"], row["openings"], row["gate_reason"]) == ("open", 1, "account")
    assert 0 < row["open_seconds"] <= 100
    assert 0 < row["gate_seconds"] <= 60
    assert (other["model"], other["state"]) == ("challenger", "closed")
    shown = dspyq("breaker", "show", settings=two_models).stdout
    for text in ("open for", "account", "60,000", "challenger"):
        assert text in shown


def test_open_refuses_all_calls_until_close(dspyq, two_models, worker):
    assert dspyq("breaker", "open", "control", settings=two_models).stdout == "opened: control\n"
    assert state(worker).is_forced
    assert "open (forced)" in dspyq("breaker", "show", "control", settings=two_models).stdout
    assert json.loads(dspyq("breaker", "close", "control", "--json", settings=two_models).stdout) == {
        "closed": ["control"]
    }
    assert state(worker).name == "closed"


def test_reset_forgets_openings_and_opens_the_gate(dspyq, two_models, worker):
    breaker, limiter, _ = worker
    breaker.report("failed", "a", 0)
    breaker.report("failed", "b", 0)
    limiter.gate.close("account")
    dspyq("breaker", "reset", "--all", settings=two_models)
    assert (state(worker).name, state(worker).openings) == ("closed", 0)
    assert limiter.gate.read().closed_seconds == 0


def test_the_only_model_need_not_be_named(dspyq):
    assert dspyq("breaker", "open").stdout == "opened: control\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["open"], "name a model or use --all; there is control, challenger"),
        (["show", "contrl"], "there is no model 'contrl'; there is control, challenger"),
    ],
)
def test_a_model_that_is_not_there_or_not_named_is_one_line(arguments, told, dspyq, two_models):
    assert told in dspyq("breaker", *arguments, settings=two_models, ok=False).stderr.splitlines()[0]


def test_a_redis_that_is_not_there_is_one_line_that_names_the_setting(dspyq):
    for command in ("show", "open"):
        lines = dspyq("breaker", command, redis_url="redis://127.0.0.1:1/0", ok=False).stderr.splitlines()
        assert len(lines) == 1
        assert "DSPYQ_REDIS_URL" in lines[0]


def test_help_teaches_with_examples(dspyq):
    for command in ("show", "reset"):
        assert f"dspyq breaker {command}" in dspyq("breaker", command, "--help", settings="/nowhere.toml").stdout
