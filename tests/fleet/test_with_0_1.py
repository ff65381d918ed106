"""Versions 0.1 and 0.2 in one fleet: either answers the other, and what one stored the other reads."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from dspyq.cache.claims import process_claims
from dspyq.config.settings import get_settings
from dspyq.delivery.queues import process_queues
from dspyq.guards.call_journal import CallJournal
from dspyq.guards.call_records import CallRecord, JobRun
from dspyq.guards.costs import read_costs
from dspyq.prediction.request import build_request
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.keys import key, result_key
from dspyq.store.scripts import run_together
from tests.support.processes import wait_until


def ask(questions: list[str]) -> list[list[Any]]:
    """Ask, in a producer of 0.1: the answer, where it came from, and of a failure its class and whether to retry."""
    from producer import predict

    jobs = [predict.delay(question=questions[0]), *predict.many([{"question": each} for each in questions[1:]])]
    outcomes = []
    for job in jobs:
        try:
            answer = job.get(timeout=60)
            outcomes.append([answer.answer, answer.metadata.cache_level])
        except Exception as error:  # noqa: BLE001 - told to the test
            outcomes.append([f"{type(error).__module__}.{type(error).__name__}", getattr(error, "retryable", None)])
    return outcomes


def test_a_worker_answers_jobs_that_a_producer_of_0_1_queued_before_it_started(
    configured: Any, old_producer: Callable[..., Any], worker: Callable[..., Any], endpoint: Any
) -> None:
    del configured
    producer = old_producer(ask, questions=["before", "it started", "refused"])
    wait_until(lambda: sum(queue.waiting for queue in process_queues().all()) == 3, 60, "0.1 to have queued its jobs")
    endpoint.script(status=400, containing="refused")
    worker()
    first, second, failed = producer.result(60)
    assert "before" in first[0]
    assert "it started" in second[0]
    assert failed == ["config.errors.PredictionFailed", False]


def test_a_worker_of_0_1_answers_this_version_and_both_read_the_cache_of_the_other(
    predict: Any, old_worker: Any, old_producer: Callable[..., Any], endpoint: Any
) -> None:
    del old_worker
    from dspyq.errors import PredictionFailed

    jobs = [predict.delay(question="by 0.1"), *predict.many([{"question": "by 0.1 too"}])]
    assert ["by 0.1" in job.get(timeout=60).answer for job in jobs] == [True, True]
    assert predict.delay(question="by 0.1").get(timeout=20).metadata.cached
    endpoint.script(status=400, containing="refused")
    failing = predict.delay(question="refused")
    with pytest.raises(PredictionFailed):
        failing.get(timeout=60)
    stored = orjson.loads(answers_client().get(result_key(failing.id)))
    assert stored["result"]["exc_module"] == "config.errors"
    calls = endpoint.calls()
    (found,) = old_producer(ask, questions=["by 0.1 too"]).result(60)
    assert found[1] == "redis"
    assert endpoint.calls() == calls


@pytest.mark.journey
def test_what_the_cache_saved_is_the_total_of_both_versions(
    predict: Any, old_worker: Any, old_producer: Callable[..., Any]
) -> None:
    del old_worker
    request = build_request({"question": "by both"})
    cost_usd = predict.delay(question="by both").get(timeout=60).metadata.cost_usd
    assert process_claims().claim(request, "other", priority=0).verdict == "hit"
    (found,) = old_producer(ask, questions=["by both"]).result(60)
    assert found[1] == "redis"
    lines = read_costs(jobs_client(), get_settings(), days=2)
    assert cost_usd > 0
    assert sum(line.avoided_nano_usd for line in lines) == 2 * round(cost_usd * 1e9)


def read_calls(task_id: str) -> list[Any]:
    """Read what earlier runs of a job did, in a worker of 0.1."""
    from dataclasses import asdict

    from config.redis import jobs_client

    from workers.guards.paid import PaidCalls

    earlier = PaidCalls(jobs_client()).of(task_id, "control")
    return [[asdict(call) for call in earlier.calls], {name: of.decode() for name, of in earlier.replies.items()}]


@pytest.mark.usefixtures("configured")
def test_a_worker_of_0_1_goes_on_where_a_run_of_this_version_was_parked(old_producer: Callable[..., Any]) -> None:
    task_id = str(uuid.uuid4())
    client = jobs_client()
    client.hset(key(f"job:{task_id}"), "fence", "7")
    job = JobRun(task_id, "7", "qa", "control")
    now = time.time()
    failed = CallRecord(
        "m", "server", 1.5, key="k:1", began_at=now, opens_breaker=True, row=3, is_in_outage=True, failed_at=12
    )
    answered = CallRecord("m", "ok", 0.5, 10, 20, 0.001, key="k:1", began_at=now + 1)
    paid = CallJournal(client)
    steps = [paid.remember(job, "7:control:1", failed, None), paid.remember(job, "7:control:2", answered, b"reply")]
    assert run_together(client, steps) == [True, True]
    calls, replies = old_producer(read_calls, task_id=task_id).result(60)
    assert [(call["outcome"], call["cost_usd"], call["key"]) for call in calls] == [
        ("server", None, "k:1"),
        ("ok", 0.001, "k:1"),
    ]
    assert replies == {"k:1": "reply"}
    ours = paid.of(task_id, "control").calls
    assert [(call.row, call.is_in_outage, call.failed_at, call.opens_breaker) for call in ours] == [
        (3, True, 12, True),
        (0, False, 0, False),
    ]
