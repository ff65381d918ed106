"""Jobs of versions: the queue to which they move, the workers that take them, and their longest wait."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from dspyq.delivery.backlog import Backlog
from dspyq.delivery.records import Records
from dspyq.delivery.versions import Versions, base_queue, version_queue
from dspyq.store.scripts import run_together

LEASE_SECONDS = 30.0
VERSION = version_queue("q", "0123456789abcdef0123")
PREFIX = "dspy:v1:"


def pass_on_all(records: Records, version: str = VERSION) -> list[str]:
    passed = []
    while delivery := records.take("q", LEASE_SECONDS):
        assert records.pass_on(delivery.tag, version)
        passed.append(delivery.id)
    return passed


def sweep(records: Records, *, wait: float = 1e9, served: tuple[str, ...] = ()) -> Any:
    return records.sweep(3, version_wait_seconds=wait, served=served)


def test_a_job_that_was_passed_on_goes_to_workers_of_its_version_alone(records: Records, job: Any) -> None:
    records.put(job("theirs"))
    records.put(job("behind"))
    first = records.take("q", LEASE_SECONDS)
    assert first
    records.pass_on(first.tag, VERSION)
    other = records.take("q", LEASE_SECONDS)
    assert other
    assert other.id == "behind", "it stood in the way of another job"
    assert records.take("q", LEASE_SECONDS) is None, "it came back to a worker that cannot answer it"
    found = records.take("q", LEASE_SECONDS, VERSION)
    assert found
    assert (found.id, found.is_given_up) == ("theirs", False)


def test_a_worker_takes_from_its_version_and_its_queue_in_one_order(records: Records, job: Any) -> None:
    records.put(job("second"))
    records.put(job("urgent", priority=0))
    pass_on_all(records)
    records.put(job("third"))
    taken = [records.take("q", LEASE_SECONDS, VERSION) for _ in range(4)]
    assert [delivery and delivery.id for delivery in taken] == ["second", "urgent", "third", None]


def test_a_run_that_lost_its_job_passes_nothing_on(records: Records, job: Any) -> None:
    records.put(job("one"))
    stale = records.take("q", LEASE_SECONDS)
    assert stale
    records.give_back([stale.tag])
    assert not records.pass_on(stale.tag, VERSION)


def test_a_job_waits_without_end_while_a_worker_of_its_version_lives(records: Records, job: Any) -> None:
    records.put(job("one"))
    pass_on_all(records)
    assert [sweep(records, wait=0.0, served=(VERSION,)).given_up for _ in range(3)] == [0, 0, 0]


def test_a_job_of_a_version_without_workers_is_given_up_after_its_time(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("old"))
    pass_on_all(records)
    assert sweep(records, wait=60).unserved == ((VERSION, 1),)
    jobs_redis.hset(f"{PREFIX}unserved", VERSION, 0)
    jobs_redis.hset(f"{PREFIX}job:old", "passed_on_at", 0)
    records.put(job("young"))
    pass_on_all(records)
    second = sweep(records, wait=60)
    assert (second.given_up, second.unserved) == (1, ()), "said once, and one job's time is up"
    given_up = records.take("q", LEASE_SECONDS)
    assert given_up
    assert (given_up.id, given_up.is_given_up) == ("old", True)
    assert records.take("q", LEASE_SECONDS) is None, "the other one has not waited long enough"


def test_a_worker_that_came_and_went_begins_the_time_anew(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one"))
    pass_on_all(records)
    sweep(records)
    jobs_redis.hset(f"{PREFIX}unserved", VERSION, 0)
    jobs_redis.hset(f"{PREFIX}job:one", "passed_on_at", 0)
    sweep(records, served=(VERSION,))
    jobs_redis.zrem(f"{PREFIX}served", VERSION)
    assert sweep(records, wait=60).given_up == 0


def test_nothing_is_left_of_a_version_whose_jobs_are_done(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one"))
    pass_on_all(records)
    assert VERSION in sweep(records).versions
    found = records.take("q", LEASE_SECONDS, VERSION)
    assert found
    records.finish(found.tag)
    jobs_redis.delete("q")  # a worker has answered the bell
    sweep(records)
    left = set(jobs_redis.keys("*"))
    assert left <= {f"{PREFIX}seq", f"{PREFIX}swept"}


def test_purging_a_queue_purges_its_versions(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one"))
    pass_on_all(records)
    assert records.purge("q") == 1
    assert not jobs_redis.exists(f"{PREFIX}job:one")


def test_jobs_of_a_version_count_as_their_queue_s_only_while_a_worker_serves_it(records: Records, job: Any) -> None:
    records.put(job("one"))
    pass_on_all(records)
    client = records._client  # noqa: SLF001 - the same Redis
    (backlog,) = run_together(client, [Backlog(client, ["q"]).read()])
    assert [each.waiting_count for each in backlog] == [0, 1]
    sweep(records, served=(VERSION,))
    (backlog,) = run_together(client, [Backlog(client, ["q"]).read()])
    assert [each.waiting_count for each in backlog] == [1, 0]


def test_announced_are_versions_of_variants_and_names_of_other_queues() -> None:
    versions = Versions()
    versions.serve("qa.a", "f" * 64)
    versions.consumed = lambda: ["qa.a", "celery"]
    own = version_queue("qa.a", "f" * 64)
    assert versions.announced() == [own, "celery"]
    assert (versions.with_jobs(["qa.a", "celery"]), versions.with_jobs_of("qa.a")) == ([], "")
    versions.waiting = frozenset({own, version_queue("qa.a", "e" * 64)})
    assert (versions.with_jobs(["qa.a", "celery"]), versions.with_jobs_of("qa.a")) == ([own], own)
    assert versions.base(own) == "qa.a"


@pytest.mark.parametrize(
    ("queue", "base"),
    [("qa.a@0123456789abcdef", "qa.a"), ("mail@0123", "mail@0123"), ("mail@0123456789abcdeg", "mail@0123456789abcdeg")],
)
def test_only_a_version_s_queue_has_another_base(queue: str, base: str) -> None:
    assert base_queue(queue) == base
