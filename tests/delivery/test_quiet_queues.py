"""Queues that no job was in for a while: who listens to them, and what becomes of their bells."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import redis

from dspyq.core.tolerated import tolerated
from dspyq.delivery import quiet_queues
from dspyq.delivery.pauses import Pauses
from dspyq.delivery.quiet_queues import MOST_WITHOUT_QUIET, QuietQueues, process_quiet_queues
from tests.delivery.consuming import QUEUE, connect, consume, drain, drain_until
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

MANY = [f"queue-{number}" for number in range(MOST_WITHOUT_QUIET + 1)]
PROGRAMS = 40


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def quiet(configured: Any, redis_server: RedisServer, pauses: Pauses) -> Iterator[QuietQueues]:
    del configured  # names of keys come from it
    with redis_server.client(decode_responses=False) as client:
        queues = QuietQueues(client, pauses)
        yield queues
        queues.stop()


@pytest.fixture
def shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at queues without bells ends soon."""
    monkeypatch.setattr(quiet_queues, "_LISTEN_SECONDS", 0.05)


def passed_on(quiet: QuietQueues, client: redis.Redis) -> list[Any]:
    return [json.loads(item) for item in client.lrange(quiet.passed_on, 0, -1)]


def test_a_bell_goes_to_this_workers_consumer_which_listens_there_from_now_on(
    quiet: QuietQueues, jobs_redis: redis.Redis
) -> None:
    jobs_redis.lpush(MANY[3], "1")
    assert quiet.look(MANY, lambda: True)
    assert passed_on(quiet, jobs_redis) == [MANY[3]]
    assert jobs_redis.llen(MANY[3]) == 0
    assert quiet.queues == set(MANY) - {MANY[3]}


def test_a_worker_without_room_leaves_the_bell_to_others(quiet: QuietQueues, jobs_redis: redis.Redis) -> None:
    jobs_redis.lpush(MANY[3], "1")
    quiet.look(MANY, lambda: False)
    assert jobs_redis.lrange(MANY[3], 0, -1) == ["1"]
    assert MANY[3] not in quiet.queues
    assert passed_on(quiet, jobs_redis) == [1], "the consumer is woken: it may have room by now"


def test_what_is_no_bell_stays_in_its_list_in_its_place(quiet: QuietQueues, jobs_redis: redis.Redis) -> None:
    jobs_redis.lpush(MANY[3], '{"body": "first"}', '{"body": "second"}')
    quiet.look(MANY, lambda: True)
    assert jobs_redis.lrange(MANY[3], 0, -1) == ['{"body": "second"}', '{"body": "first"}']
    assert passed_on(quiet, jobs_redis) == [1]


@pytest.mark.usefixtures("shortly")
def test_a_queue_is_quiet_again_a_minute_after_its_last_bell(
    quiet: QuietQueues, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet.note_bell(MANY[0])
    quiet.look(MANY, lambda: True)
    assert quiet.queues == set(MANY[1:])
    monkeypatch.setattr(quiet_queues, "LOUD_SECONDS", 0.0)
    quiet.look(MANY, lambda: True)
    assert quiet.queues == set(MANY)


@pytest.mark.usefixtures("shortly")
def test_nothing_is_taken_from_a_paused_queue(quiet: QuietQueues, pauses: Pauses, jobs_redis: redis.Redis) -> None:
    pauses.pause(MANY[3])
    jobs_redis.lpush(MANY[3], "1")
    quiet.look(MANY, lambda: True)
    assert jobs_redis.llen(MANY[3]) == 1
    assert MANY[3] not in quiet.queues, "once it is resumed, the consumer listens"


def test_the_consumer_takes_a_job_for_a_bell_that_was_passed_on(
    tasks: ModuleType, jobs_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = process_quiet_queues()
    received: list[Any] = []
    monkeypatch.setattr(quiet, "queues", frozenset({QUEUE}))
    with connect(tasks) as connection:
        consume(connection, received)
        job = tasks.add.apply_async((1, 2), ignore_result=True)
        drain(connection)
        assert not received, "the thread listens there, not the consumer"
        jobs_redis.lpush(quiet.passed_on, json.dumps(QUEUE))
        drain_until(connection, lambda: received)
        assert [message.headers["id"] for message in received] == [job.id]


def test_of_few_queues_none_is_quiet(quiet: QuietQueues) -> None:
    assert not quiet.look(MANY[:MOST_WITHOUT_QUIET], lambda: True)
    assert quiet.queues == frozenset()


def test_while_redis_fails_no_queue_is_quiet(quiet: QuietQueues, jobs_redis: redis.Redis) -> None:
    before = tolerated("quiet_queues_thread")
    quiet.start(lambda: MANY, lambda: True)

    def listening() -> list[str]:
        blocked = (each for each in jobs_redis.client_list() if "b" in each["flags"])
        return [each["id"] for each in blocked if each["cmd"] == "brpop"]

    jobs_redis.client_kill_filter(_id=wait_until(listening, 30, "the thread to listen")[0])
    wait_until(lambda: tolerated("quiet_queues_thread") > before, 30, "the thread to fail")
    jobs_redis.lpush(MANY[0], "1")
    wait_until(lambda: passed_on(quiet, jobs_redis) == [MANY[0]], 30, "the thread to listen again")


@pytest.fixture
def many_programs(settings_file: Callable[..., Path]) -> Path:
    one = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
    return settings_file({"programs": {f"p{number:02}": one for number in range(PROGRAMS)}})


@pytest.mark.journey
def test_a_workers_consumer_names_the_queues_with_jobs_alone(
    worker: Callable[..., Worker], run_producer: Callable[..., Any], many_programs: Path, redis_server: RedisServer
) -> None:
    def ask(program: str, count: int) -> list[str]:
        from dspyq import predict

        rows = [{"question": f"{program} {number}"} for number in range(count)]
        return [job.get(timeout=30).answer for job in predict.many(rows, program=program)]

    worker(many_programs)
    for program in ("p00", "p01"):  # none of them had a job before
        assert len(run_producer(ask, many_programs, program=program, count=1)) == 1
    with redis_server.client() as client, client.monitor() as monitor:
        few, named = threading.Event(), list[int]()

        def watch() -> None:
            for command in monitor.listen():
                text = command["command"]
                if text == "ECHO done":
                    return
                if text.startswith("BRPOP") and "passed-on" in text:
                    named.append(len(text.split()) - 2)
                    if named[-1] < PROGRAMS:
                        few.set()

        thread = threading.Thread(target=watch)
        thread.start()
        assert few.wait(30), "the worker's thread listens to the others by now"
        named.clear()
        assert len(run_producer(ask, many_programs, program="p00", count=20)) == 20
        redis_server.client().echo("done")
        thread.join(timeout=30)
    assert named
    assert max(named) <= 4, "the two with jobs, the default one, what was passed on"


def test_workers_that_pass_bells_on_lose_and_repeat_nothing(
    worker: Callable[..., Worker],
    run_producer: Callable[..., Any],
    many_programs: Path,
    endpoint: Any,
) -> None:
    def ask(programs: int) -> int:
        from dspyq import predict

        rows = [(f"p{number:02}", {"question": f"{number} {turn}"}) for turn in range(3) for number in range(programs)]
        jobs = [predict.apply_async(kwargs=row, program=program) for program, row in rows]
        return len([job.get(timeout=60) for job in jobs])

    workers = [
        worker(many_programs, waits=False),
        worker(many_programs, waits=False, arguments=["-Q", "p00.control,p07.control"]),
    ]
    for each in workers:
        each.ready()
    assert run_producer(ask, many_programs, programs=PROGRAMS, timeout_seconds=90) == 3 * PROGRAMS
    assert endpoint.calls() == 3 * PROGRAMS
