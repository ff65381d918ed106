"""Jobs that were set aside: how many are kept, and how long."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from dspyq.delivery.dead import DeadJobs
from dspyq.delivery.records import Records

PREFIX = "dspy:v1:"
DAY_SECONDS = 86_400.0


@pytest.fixture
def dead(records: Records, job: Any) -> list[str]:
    ids = [f"dead{number}" for number in range(5)]
    for job_id in ids:
        records.put(job(job_id))
        delivery = records.take("q", 30)
        assert delivery
        records.set_aside(delivery.tag, "test")
    return ids


def kept(client: redis.Redis) -> list[str]:
    return sorted(key.removeprefix(f"{PREFIX}job:") for key in client.scan_iter(f"{PREFIX}job:*"))


def test_the_oldest_go_once_there_are_too_many(records: Records, dead: list[str], jobs_redis: redis.Redis) -> None:
    DeadJobs(records._client).mark_notified(dead)  # noqa: SLF001 - the same Redis
    records.sweep(3, dead=(2, DAY_SECONDS))
    assert kept(jobs_redis) == dead[-2:]
    assert jobs_redis.zcard(f"{PREFIX}dead") == 2


def test_the_old_go(records: Records, dead: list[str], jobs_redis: redis.Redis) -> None:
    DeadJobs(records._client).mark_notified(dead)  # noqa: SLF001 - the same Redis
    jobs_redis.zadd(f"{PREFIX}dead", {dead[0]: 0})
    records.sweep(3, dead=(100, DAY_SECONDS))
    assert kept(jobs_redis) == dead[1:]


def test_no_dead_job_goes_before_its_callers_are_notified(
    records: Records, dead: list[str], jobs_redis: redis.Redis
) -> None:
    records.sweep(3, dead=(1, 0.0))
    assert kept(jobs_redis) == dead
