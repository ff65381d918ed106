"""``dspyq queues``, and the output of ``check`` and ``predict`` on jobs that no worker takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest


@pytest.fixture
def removed(predict: Any, settings_file: Callable[..., Any]) -> Any:
    """A configuration without ``qa``, of which two jobs wait."""
    for number in range(2):
        predict.delay(question=f"q{number}")
    signature = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
    return settings_file({"programs": {"qa": None, "other": signature}})


def listed(dspyq: Any, settings: Any) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(dspyq("queues", "list", "--json", settings=settings).stdout)}


def test_jobs_of_a_removed_program_are_named_drained_and_forgotten(
    removed: Any, dspyq: Any, redis_server: Any, predict: Any
) -> None:
    (warning,) = json.loads(dspyq("check", "--json", settings=removed).stdout)["warnings"]
    assert "qa.control holds 2 jobs" in warning
    found = listed(dspyq, removed)
    assert (found["qa.control"]["waiting"], found["qa.control"]["is_configured"]) == (2, False)
    assert (found["other.control"]["waiting"], found["other.control"]["is_configured"]) == (0, True)
    assert "holds jobs" in dspyq("queues", "forget", "qa.control", settings=removed, ok=False).stderr
    assert json.loads(dspyq("queues", "drain", "qa.control", "--json", settings=removed).stdout) == {"ended": 2}
    assert predict.delay(question="q0").id  # its question is free
    dspyq("queues", "drain", "qa.control", settings=removed)
    assert json.loads(dspyq("queues", "forget", "--json", settings=removed).stdout) == {"forgotten": 1}
    assert not redis_server.client().keys("*qa.control*")
    assert json.loads(dspyq("check", "--json", settings=removed).stdout)["warnings"] == []


def test_the_bindings_of_a_removed_queue_end_with_it_and_those_of_others_stay(
    dspyq: Any, redis_server: Any, worker: Any, settings_file: Callable[..., Any]
) -> None:
    worker().kill()
    client = redis_server.client()
    keys = ("_kombu.binding.dspyq", "_kombu.binding_permanent.dspyq")
    before = {name: client.smembers(name) for name in keys}
    assert all(any("qa.control" in member for member in members) for members in before.values())
    client.delete("dspy:v1:served")  # it is dead
    signature = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
    removed = settings_file({"programs": {"qa": None, "other": signature}})
    assert not listed(dspyq, removed)["qa.control"]["is_configured"]
    dspyq("queues", "forget", settings=removed)
    for name, members in before.items():
        assert client.smembers(name) == {member for member in members if "qa.control" not in member}
    assert "qa.control" not in listed(dspyq, removed)


def test_a_queue_that_workers_of_an_older_configuration_serve_is_not_forgotten(
    removed: Any, dspyq: Any, redis_server: Any
) -> None:
    redis_server.client().zadd("dspy:v1:served", {"qa.control@0123456789abcdef": 2**40})
    assert json.loads(dspyq("check", "--json", settings=removed).stdout)["warnings"] == []
    assert listed(dspyq, removed)["qa.control"]["is_served"]
    dspyq("queues", "drain", "qa.control", settings=removed)
    assert "served" in dspyq("queues", "forget", "qa.control", settings=removed, ok=False).stderr


def test_guards_of_what_was_removed_are_forgotten_and_of_what_is_configured_are_not(
    dspyq: Any, redis_server: Any
) -> None:
    client = redis_server.client()
    kept = ["breaker:control", "rate:control", "rate:control:batch:b"]
    for name in (*kept, "breaker:old", "rate:old", "rate:old:batch:b", "rate:older"):
        client.hset(f"dspy:v1:{name}", "field", "1")
    limits = ["all daily", "program:qa daily", "variant:qa.control monthly"]
    removed = ["program:gone daily", "program:gone monthly", "variant:gone.a daily", "variant:qa.gone daily"]
    client.hset("dspy:v1:budget-limits", mapping=dict.fromkeys([*limits, *removed], "1"))

    assert json.loads(dspyq("guards", "forget", "old", "--json").stdout) == {"models": ["old"], "limits": []}
    assert client.exists("dspy:v1:rate:older")
    forgotten = json.loads(dspyq("guards", "forget", "gone", "--json").stdout)
    assert forgotten == {"models": [], "limits": ["program:gone", "variant:gone.a"]}
    assert "model:older, variant:qa.gone" in dspyq("guards", "forget").stdout
    assert set(client.keys("dspy:v1:[br][ra][et]*")) == {f"dspy:v1:{name}" for name in kept}
    assert set(client.hkeys("dspy:v1:budget-limits")) == set(limits)
    for name in ("control", "qa", "qa.control"):
        assert "it is configured" in dspyq("guards", "forget", name, ok=False).stderr
    assert "nothing is kept" in dspyq("guards", "forget", "old", ok=False).stderr
    old_form = dspyq("forget", "--json")
    assert ("is `dspyq guards forget" in old_form.stderr, json.loads(old_form.stdout)) == (
        True,
        {"models": [], "limits": []},
    )


def test_a_configured_queue_is_not_forgotten(dspyq: Any) -> None:
    assert "configured" in dspyq("queues", "forget", "qa.control", ok=False).stderr


def test_predict_prints_that_no_worker_takes_from_its_queue(dspyq: Any) -> None:
    failed = dspyq("predict", "question=q", "--timeout", "0.5", ok=False)
    assert "no worker takes from its queue, qa.control" in " ".join(failed.stderr.split())


@pytest.mark.parametrize(
    ("served", "words"),
    [("qa.control@0123456789abcdef", "have another version"), (None, "waits for its turn in qa.control")],
)
def test_what_a_job_waits_for_goes_by_what_workers_announce(
    served: str | None, words: str, configured: Any, predict: Any, redis_server: Any
) -> None:
    from dspyq.delivery.versions import version_queue
    from dspyq.guards.waits import reason

    own = version_queue("qa.control", configured.programs["qa"].fingerprints["control"])
    job = predict.delay(question="q")
    redis_server.client().zadd("dspy:v1:served", {served or own: 2**40})
    assert words in reason(job.id)


@pytest.mark.parametrize(
    ("guard", "is_parked", "words"),
    [
        ("breaker", False, "circuit breaker of control is open"),
        ("breaker", True, "circuit breaker of control is open"),
        ("gate", True, "gate of control is closed"),
        ("budget", True, "a budget is used up (all daily)"),
        ("rate", True, "the rate limit of control has no turn"),
        (None, True, "parked for a while"),
    ],
)
def test_the_guard_that_keeps_a_job_is_named(
    guard: str | None, is_parked: bool, words: str, configured: Any, predict: Any, redis_server: Any, monkeypatch: Any
) -> None:
    from dspyq.delivery.versions import version_queue
    from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
    from dspyq.guards.limits import Limits
    from dspyq.guards.rate_limit import RateLimiter, RateLimitPolicy
    from dspyq.guards.waits import reason
    from dspyq.store.clients import jobs_client

    model = configured.programs["qa"].variants["control"].model
    own = version_queue("qa.control", configured.programs["qa"].fingerprints["control"])
    job = predict.apply_async(kwargs={"question": "q"}, **({"countdown": 60} if is_parked else {}))
    redis_server.client().zadd("dspy:v1:served", {own: 2**40})
    if guard == "breaker":
        FleetBreaker(jobs_client(), model.name, BreakerPolicy.of(configured, model)).command("open")
    elif guard == "gate":
        RateLimiter(jobs_client(), model.name, RateLimitPolicy.of(configured, model)).gate.close("account", 60)
    elif guard == "budget":
        Limits(jobs_client(), configured).override("all", "daily", 0)
    elif guard == "rate":
        paced = replace(RateLimitPolicy.of(configured, model), requests_per_second=1)
        monkeypatch.setattr(RateLimitPolicy, "of", lambda *_: paced)
    assert words in reason(job.id)
