"""Deploys: workers and producers of two versions at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.processes import wait_until

pytestmark = [pytest.mark.journey, pytest.mark.usefixtures("configured")]


def ask_twenty(prefix: str) -> Any:
    """Ask, in a producer's process."""
    from dspyq import predict

    jobs = [predict.delay(question=f"{prefix}-{number}") for number in range(20)]
    return [job.get(timeout=60).metadata.model for job in jobs]


def ask_fifty(prefix: str) -> Any:
    """Ask, in a producer's process; say by which models and how long the last answer took."""
    import time

    from dspyq import predict

    began_at = time.monotonic()
    jobs = [predict.delay(question=f"{prefix}-{number}") for number in range(50)]
    models = [job.get(timeout=100).metadata.model for job in jobs]
    return models, time.monotonic() - began_at


@pytest.mark.long
def test_of_two_hundred_jobs_that_six_old_workers_and_a_new_one_find_none_fails(
    worker: Any, settings_file: Callable[..., Any], start_producer: Any
) -> None:
    old, new = settings_file(), settings_file({"models": {"control": {"model": "openai/newer"}}})
    before = [start_producer(ask_fifty, old, prefix="old before workers")]
    workers = [worker(old, waits=False) for _ in range(6)]
    for each in workers:
        each.ready()
    before.append(start_producer(ask_fifty, new, prefix="new before its worker"))
    wait_until(lambda: any("version_not_served" in each.logs() for each in workers), 30, "operators to be told")
    told_at = time.monotonic()
    worker(new).ready()
    print(f"the new worker came {time.monotonic() - told_at:.1f} s after operators were told")  # noqa: T201 - figures
    after = [start_producer(ask_fifty, old, prefix="old after"), start_producer(ask_fifty, new, prefix="new after")]
    outcomes = [producer.result(110) for producer in (*before, *after)]
    print([(models[0], len(models), round(seconds, 1)) for models, seconds in outcomes])  # noqa: T201 - as above
    models = [[model] * 50 for model in ("openai/control", "openai/newer", "openai/control", "openai/newer")]
    assert [answered for answered, _ in outcomes] == models


def test_while_both_versions_live_each_job_is_answered_by_a_worker_of_its_own(
    worker: Any, settings_file: Callable[..., Any], start_producer: Any
) -> None:
    old = settings_file({"delivery": {"version_wait_seconds": 0}})  # without any patience
    new = settings_file(
        {"delivery": {"version_wait_seconds": 0}, "models": {"control": {"model": "openai/newer"}}},
    )
    workers = [worker(old, waits=False) for _ in range(2)] + [worker(new, waits=False)]
    for each in workers:
        each.ready()
    asking = [start_producer(ask_twenty, settings, prefix=name) for name, settings in (("o", old), ("n", new))]
    models = [set(producer.result(60)) for producer in asking]
    assert models == [{"openai/control"}, {"openai/newer"}]


def test_producers_first_their_jobs_wait_for_workers_of_their_version_and_a_warning_is_logged(
    worker: Any, settings_file: Callable[..., Any], start_producer: Any
) -> None:
    old, new = settings_file(), settings_file({"programs": {"qa": {"version": "2"}}})
    before = worker(old)
    producer = start_producer(ask_twenty, new, prefix="q")
    wait_until(lambda: "version_not_served" in before.logs(), 20, "the old worker to say that nobody serves them")
    assert before.logs().count("jobs_left_to_another_version") == 1
    worker(new)
    assert producer.result(60) == ["openai/control"] * 20


def test_where_no_worker_of_its_version_comes_a_job_fails_after_that_time_and_its_question_is_free(
    worker: Any, settings_file: Callable[..., Any], run_producer: Any, redis_server: Any
) -> None:
    wait = {"delivery": {"version_wait_seconds": 1}}
    ours, theirs = settings_file(wait), settings_file({**wait, "programs": {"qa": {"version": "2"}}})
    worker(theirs)

    def ask() -> Any:
        from dspyq import predict
        from dspyq.errors import VariantMismatch

        try:
            predict.delay(question="q").get(timeout=30)
        except VariantMismatch as error:
            return str(error)

    began_at = time.monotonic()
    text = run_producer(ask, ours, timeout_seconds=40)
    assert time.monotonic() - began_at >= 1
    assert "delivery.version_wait_seconds" in text
    assert not redis_server.client().keys("dspy:v1:prediction:*")
