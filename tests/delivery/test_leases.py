"""The leases of a process: begun, renewed, finished, lost and let go."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from dspyq.delivery.leases import Leases
from dspyq.delivery.records import Records
from tests.support.beats import beat_of
from tests.support.processes import free_port, wait_until
from tests.support.redis_server import RedisServer

SHORT_LEASE_SECONDS = 0.3


def fail(*_: object) -> None:
    raise redis.ConnectionError


@pytest.fixture
def take(job: Any) -> Callable[[Leases], str]:
    """Put a job and take it, and return the run's tag."""

    def put_and_take(leases: Leases) -> str:
        leases.records.put(job())
        delivery = leases.take("q")
        assert delivery is not None
        return delivery.tag

    return put_and_take


def test_a_run_begins_without_a_round_trip_while_its_lease_is_sure(
    leases: Leases, take: Any, redis_server: RedisServer
) -> None:
    tag = take(leases)
    with redis_server.counted() as usage:
        assert leases.begin(tag)
    assert usage.round_trips == 0


def test_a_run_with_a_doubtful_lease_renews_it_in_redis(
    make_leases: Callable[..., Leases], take: Any, redis_server: RedisServer
) -> None:
    lease_seconds = 1.0  # longer than two calls take, on any machine
    leases = make_leases(lease_seconds)
    tag = take(leases)
    leases.records.renew([tag], lease_seconds)  # loads the script; the process does not learn of it
    time.sleep(lease_seconds)
    with redis_server.counted() as usage:
        assert leases.begin(tag)
        assert leases.begin(tag)
    assert usage.round_trips == 1


def test_a_run_that_lost_its_job_does_not_begin(make_leases: Callable[..., Leases], take: Any) -> None:
    leases, other = make_leases(SHORT_LEASE_SECONDS), make_leases()
    tag = take(leases)
    time.sleep(SHORT_LEASE_SECONDS)
    beat_of(other).once()
    assert other.take("q") is not None
    assert not leases.begin(tag)


def test_a_run_taken_by_another_process_begins_while_it_holds_its_job(
    make_leases: Callable[..., Leases], take: Any
) -> None:
    parent, child = make_leases(), make_leases()
    tag = take(parent)
    assert child.begin(tag)
    parent.finish(tag)
    assert not child.begin(tag)


def test_a_doubtful_run_does_not_begin_while_redis_is_away_and_its_ack_ends_nothing(
    make_leases: Callable[..., Leases], take: Any, jobs_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = make_leases(SHORT_LEASE_SECONDS)
    tag = take(leases)
    time.sleep(SHORT_LEASE_SECONDS)
    with monkeypatch.context() as patched:
        patched.setattr(leases.records, "renew", fail)
        assert not leases.begin(tag)
    leases.finish(tag)
    beat_of(leases).once()
    assert jobs_redis.zcard("dspy:v1:queue:q") == 1


def test_another_processs_run_fails_where_redis_is_away(leases: Leases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases.records, "renew", fail)
    with pytest.raises(redis.ConnectionError):
        leases.begin("another:1")


def test_the_beat_keeps_a_job_far_beyond_its_lease(make_leases: Callable[..., Leases], take: Any) -> None:
    lease_seconds = 1.0  # longer than this process is kept from running, on any machine
    leases, other = make_leases(lease_seconds), make_leases()
    tag = take(leases)
    beat_of(leases).start()
    end = time.monotonic() + 2.5 * lease_seconds
    while time.monotonic() < end:
        beat_of(other).once()
        assert other.take("q") is None
        time.sleep(0.02)
    leases.finish(tag)


def test_a_run_whose_answer_ended_its_job_costs_no_round_trip_at_its_ack_and_is_not_reported_as_lost(
    leases: Leases, take: Any, redis_server: RedisServer, caplog: Any
) -> None:
    tag = take(leases)
    with leases.storing(tag) as lease:
        leases.records.finish(tag)  # as the answer does
        beat_of(leases).once()  # meanwhile
        lease.is_finished = True
    beat_of(leases).once()
    with redis_server.counted() as usage:
        leases.finish(tag)
    assert usage.round_trips == 0
    assert leases.held_count == 0
    assert not caplog.records


def test_a_stopped_beat_renews_nothing_and_can_be_started_again(make_leases: Callable[..., Leases], take: Any) -> None:
    leases, other = make_leases(SHORT_LEASE_SECONDS), make_leases()
    for _ in range(2):
        take(leases)
        beat_of(leases).start()
        beat_of(leases).start()
        assert sum(thread.name == "dspyq-beat" for thread in threading.enumerate()) == 1
        beat_of(leases).stop()
        # No lease runs out for a while after a time without sweeps, as on a busy machine.
        wait_until(lambda: beat_of(other).once() or other.take("q"), 30, "the lease to run out")


def test_a_lost_run_returns_its_slot_once(make_leases: Callable[..., Leases], take: Any, caplog: Any) -> None:
    leases, other = make_leases(SHORT_LEASE_SECONDS), make_leases()
    tag = take(leases)
    returned: list[str] = []
    leases.return_slot_with(tag, lambda: returned.append(tag))
    time.sleep(SHORT_LEASE_SECONDS)
    beat_of(other).once()
    other.take("q")
    beat_of(leases).once()
    beat_of(leases).once()
    leases.finish(tag)
    assert returned == [tag]
    assert tag in caplog.text


def test_a_job_that_ended_without_an_ack_returns_to_its_queue(make_leases: Callable[..., Leases], take: Any) -> None:
    leases = make_leases(SHORT_LEASE_SECONDS)
    tag = take(leases)
    returned: list[str] = []
    leases.return_slot_with(tag, lambda: returned.append(tag))
    beat_of(leases).start()
    assert leases.begin(tag)
    leases.ended(tag)
    again = wait_until(lambda: leases.take("q"), 30, "the job to come back")
    assert again.tag != tag
    assert (again.id, again.run_count) == (tag.rpartition(":")[0], 2)
    assert returned == [tag]


def test_a_job_that_runs_is_not_let_go_however_long_it_takes(make_leases: Callable[..., Leases], take: Any) -> None:
    leases = make_leases(SHORT_LEASE_SECONDS)
    tag = take(leases)
    beat_of(leases).start()
    leases.begin(tag)
    time.sleep(4 * SHORT_LEASE_SECONDS)
    assert leases.begin(tag)
    assert leases.take("q") is None


def test_no_run_both_begins_and_is_handed_back(leases: Leases, job: Any) -> None:
    for _ in range(200):
        leases.records.put(job())
    tags = [delivery.tag for delivery in iter(lambda: leases.take("q"), None)]
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(lambda: sum(leases.begin(tag) for tag in tags))
        given = pool.submit(leases.hand_back)
    assert begun.result() + given.result() == len(tags)


def test_an_end_that_redis_missed_is_repeated_by_the_beat(
    leases: Leases, take: Any, jobs_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = take(leases)
    monkeypatch.setattr(leases.records, "finish", fail)
    leases.finish(tag)
    assert jobs_redis.exists(f"dspy:v1:job:{tag.rpartition(':')[0]}")
    beat_of(leases).once()
    assert not jobs_redis.exists(f"dspy:v1:job:{tag.rpartition(':')[0]}")


def test_the_beat_survives_a_redis_that_does_not_answer(make_leases: Callable[..., Leases], caplog: Any) -> None:
    nobody = Records(redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}"))
    leases = make_leases(SHORT_LEASE_SECONDS, beat_records=nobody)
    beat_of(leases).start()
    wait_until(lambda: beat_of(leases).failures >= 3, 30, "three beats")
    assert "Connection refused" in caplog.text


def test_the_beat_survives_a_fault_of_its_own(leases: Leases, take: Any, caplog: Any) -> None:
    tag = take(leases)
    leases.return_slot_with(tag, lambda: 1 / 0)
    leases.records.finish(tag)
    beat_of(leases).once()
    beat_of(leases).once()
    assert beat_of(leases).failures == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_beat_moves_more_jobs_than_fit_one_script(leases: Leases, job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dspyq.delivery.records.BATCH_SIZE", 10)
    for _ in range(35):
        leases.records.put(job(delay_seconds=0.01))
    time.sleep(0.02)
    beat_of(leases).once()
    assert leases.records.backlog("q") == 35


def test_threads_that_take_begin_and_finish_under_a_beat_run_each_job_once(
    make_leases: Callable[..., Leases], job: Any, jobs_redis: redis.Redis
) -> None:
    workers = [make_leases() for _ in range(2)]
    for _ in range(300):
        workers[0].records.put(job())
    is_done = threading.Event()

    def beat(leases: Leases) -> None:
        while not is_done.is_set():
            beat_of(leases).once()

    def work(leases: Leases) -> int:
        done = 0
        while delivery := leases.take("q"):
            assert leases.begin(delivery.tag)
            time.sleep(0.001)
            leases.ended(delivery.tag)
            leases.finish(delivery.tag)
            done += 1
        return done

    with ThreadPoolExecutor(18) as pool:
        beats = [pool.submit(beat, leases) for leases in workers]
        try:
            assert sum(pool.map(work, workers * 8)) == 300
        finally:
            is_done.set()
    assert [each.result() for each in beats] == [None, None]
    assert [beat_of(leases).failures for leases in workers] == [0, 0]
    assert set(jobs_redis.scan_iter("dspy:v1:*")) == {"dspy:v1:queues", "dspy:v1:seq", "dspy:v1:swept"}


def test_a_forked_child_holds_nothing_of_its_parents() -> None:
    code = """
import os
from dspyq.delivery.leases import process_leases
parents = process_leases()
assert process_leases() is parents
if os.fork() == 0:
    os._exit(process_leases() is parents)
_, status = os.wait()
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
