"""Real Celery workers with plain tasks: what runs, how often, and what outlives what dies."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import redis
from celery import chain, chord, group

from tests.delivery.conftest import LEASE_SECONDS
from tests.support.processes import wait_until
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

#: How soon a dead worker's job must run elsewhere.
TAKEOVER_SECONDS = LEASE_SECONDS + 60
#: How late what takes no time of its own may come.
LATE_SECONDS = 60
PREFIX = "dspy:v1:"


@pytest.fixture(scope="module")
def both(make_worker: Callable[..., Worker]) -> list[Worker]:
    return [make_worker(), make_worker()]


@pytest.fixture(scope="module")
def forking(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker("-P", "prefork", "-c", "1", "-Q", "forked")


@pytest.fixture(autouse=True)
def workers(both: list[Worker], forking: Worker, redis_server: RedisServer) -> Iterator[list[Worker]]:
    """Two workers on an empty Redis; those that a test killed are started again."""
    del redis_server, forking  # emptied; started with the others, to be ready when it is asked for
    for worker in both:
        if not worker.is_running:
            worker.start()
    for worker in both:
        worker.ready()
    yield both
    for worker in both:
        worker.cont()


def began(client: redis.Redis) -> Counter[str]:
    return Counter(client.lrange("began", 0, -1))


def worker_that_runs(workers: list[Worker], client: redis.Redis) -> Worker:
    """Wait until a first job runs and return its worker."""
    pid = wait_until(lambda: client.lindex("processes", 0), LATE_SECONDS, "a job to begin")
    (worker,) = [worker for worker in workers if worker.pid == int(pid)]
    return worker


def assert_nothing_is_left(client: redis.Redis) -> None:
    """No record, place or bell outlives its job."""
    wait_until(lambda: not list(client.scan_iter(PREFIX + "job:*")), LATE_SECONDS, "the last acknowledgement")
    wait_until(lambda: not client.exists("plain"), LATE_SECONDS, "the last bell to be answered")
    left = {key for key in client.scan_iter(PREFIX + "*") if not key.startswith(PREFIX + "done:")}  # kept for an hour
    may_stay = {PREFIX + name for name in ("swept", "queues", "served")}  # by the time of the last sweep
    assert left - may_stay == {PREFIX + "seq"}


def test_each_job_runs_once_and_leaves_nothing_behind(
    tasks: ModuleType, workers: list[Worker], jobs_redis: redis.Redis
) -> None:
    results = [tasks.work.delay(str(number)) for number in range(100)]
    assert [result.get(timeout=20) for result in results] == [str(number) for number in range(100)]
    assert began(jobs_redis) == Counter(str(number) for number in range(100))
    assert_nothing_is_left(jobs_redis)
    assert "Traceback" not in "".join(worker.logs() for worker in workers)


def test_each_job_of_a_batch_runs_once(tasks: ModuleType, jobs_redis: redis.Redis) -> None:
    with tasks.app.producer_or_acquire() as producer, producer.batch(20):
        results = [tasks.work.apply_async((str(number),), producer=producer) for number in range(50)]
    for result in results:
        result.get(timeout=20)
    assert began(jobs_redis) == Counter(str(number) for number in range(50))
    assert_nothing_is_left(jobs_redis)


def test_chains_groups_and_chords_work(tasks: ModuleType, jobs_redis: redis.Redis) -> None:
    sums = [
        chain(tasks.add.s(1, 2), tasks.add.s(3)).apply_async(),
        chord([tasks.add.s(number, number) for number in range(10)], tasks.total.s()).apply_async(),
        chain(group(tasks.add.s(1, 1), tasks.add.s(2, 2)), tasks.total.s(), tasks.add.s(1)).apply_async(),
    ]
    pair = group(tasks.add.s(1, 1), tasks.add.s(2, 2)).apply_async()
    assert [result.get(timeout=20) for result in sums] == [6, 90, 7]
    assert pair.get(timeout=20) == [2, 4]
    assert_nothing_is_left(jobs_redis)


def test_a_retry_runs_after_its_countdown_which_passes_in_redis(tasks: ModuleType, jobs_redis: redis.Redis) -> None:
    started = time.monotonic()
    result = tasks.retry_twice.delay(0.5)
    wait_until(lambda: jobs_redis.zscore(PREFIX + "delayed", result.id), 60, "the retry to wait in Redis")
    assert result.get(timeout=20) == 2
    assert time.monotonic() - started >= 1
    assert_nothing_is_left(jobs_redis)


def test_a_task_that_replaces_itself_is_not_taken_for_the_one_it_replaces(
    tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    assert tasks.replace_after_retry.delay("replacement").get(timeout=20) == "replacement"
    assert_nothing_is_left(jobs_redis)


def test_a_job_longer_than_its_lease_runs_once_while_its_worker_lives_whatever_its_pool(
    tasks: ModuleType, forking: Worker, jobs_redis: redis.Redis
) -> None:
    forking.ready()
    queues = {"first": "plain", "second": "plain", "third": "forked"}
    for text, queue in queues.items():
        tasks.work.apply_async((text, 2 * LEASE_SECONDS), queue=queue, ignore_result=True)
    wait_until(lambda: jobs_redis.llen("ended") == 3, LATE_SECONDS, "all jobs to end")
    assert_nothing_is_left(jobs_redis)
    assert began(jobs_redis) == Counter(queues.keys())


def test_a_run_outlives_its_connection(tasks: ModuleType, jobs_redis: redis.Redis, redis_server: RedisServer) -> None:
    for number in range(6):
        tasks.work.apply_async((str(number), 2.0), ignore_result=True)
    wait_until(lambda: jobs_redis.llen("processes") == 6, LATE_SECONDS, "all jobs to run")
    redis_server.cut_connections()
    wait_until(lambda: jobs_redis.llen("ended") == 6, LATE_SECONDS, "all jobs to end")
    assert_nothing_is_left(jobs_redis)
    tasks.work.apply_async(("after",), ignore_result=True)
    wait_until(lambda: jobs_redis.llen("ended") == 7, LATE_SECONDS, "the workers to consume again")
    assert began(jobs_redis) == Counter([*map(str, range(6)), "after"])


def test_a_killed_workers_job_runs_again_elsewhere(
    tasks: ModuleType, workers: list[Worker], jobs_redis: redis.Redis
) -> None:
    result = tasks.work_until_released.delay("one")
    worker_that_runs(workers, jobs_redis).kill()
    jobs_redis.rpush("release again", "")
    killed = time.monotonic()
    wait_until(lambda: began(jobs_redis)["one"] == 2, TAKEOVER_SECONDS, "the other worker")
    assert time.monotonic() - killed < TAKEOVER_SECONDS
    assert result.get(timeout=LATE_SECONDS) == "one"
    assert_nothing_is_left(jobs_redis)


def test_a_countdown_passes_in_redis_and_not_in_a_worker_that_may_die(
    tasks: ModuleType, workers: list[Worker], jobs_redis: redis.Redis
) -> None:
    sent = time.monotonic()
    result = tasks.work.apply_async(("one",), countdown=1)
    assert jobs_redis.zscore(PREFIX + "delayed", result.id) is not None
    assert jobs_redis.zcard(PREFIX + "leases") == 0
    workers[0].kill()
    assert result.get(timeout=LATE_SECONDS) == "one"
    assert time.monotonic() - sent >= 1
    assert began(jobs_redis) == {"one": 1}
    assert_nothing_is_left(jobs_redis)


def test_a_frozen_worker_cannot_end_what_another_runs_meanwhile(
    tasks: ModuleType, workers: list[Worker], jobs_redis: redis.Redis
) -> None:
    result = tasks.work_until_released.delay("one")
    frozen = worker_that_runs(workers, jobs_redis)
    frozen.stop()
    wait_until(lambda: began(jobs_redis)["one"] == 2, TAKEOVER_SECONDS, "the other worker")
    frozen.cont()
    jobs_redis.rpush("release first", "")
    wait_until(lambda: jobs_redis.llen("ended") == 1, LATE_SECONDS, "the thawed run to end")
    time.sleep(0.3)  # its acknowledgement
    assert jobs_redis.zscore(PREFIX + "leases", result.id) is not None
    jobs_redis.rpush("release again", "")
    wait_until(lambda: jobs_redis.llen("ended") == 2, LATE_SECONDS, "the other run to end")
    assert_nothing_is_left(jobs_redis)
    assert began(jobs_redis)["one"] == 2


def test_jobs_that_end_without_an_acknowledgement_run_again(tasks: ModuleType, jobs_redis: redis.Redis) -> None:
    tasks.reject_once.delay("requeued", requeue=True)
    tasks.reject_once.delay("rejected", requeue=False)
    tasks.leak_once.delay("leaked")
    wait_until(lambda: began(jobs_redis).total() == 6, 2 * LEASE_SECONDS + 60, "all to run again")
    assert began(jobs_redis) == {"requeued": 2, "rejected": 2, "leaked": 2}
    assert_nothing_is_left(jobs_redis)


def answering(tasks: ModuleType, number: int) -> None:
    """Wait until so many workers answer within a second."""
    wait_until(lambda: len(tasks.app.control.ping(timeout=1)) == number, LATE_SECONDS, f"{number} to answer")


def test_workers_answer_remote_control(tasks: ModuleType) -> None:
    answering(tasks, 3)


def test_a_killed_worker_leaves_no_binding_and_others_answer_remote_control(
    tasks: ModuleType, workers: list[Worker], jobs_redis: redis.Redis
) -> None:
    workers[0].kill()
    workers[0].start()
    workers[0].ready()
    answering(tasks, 3)
    workers[0].kill()
    bound = {key: jobs_redis.smembers(key) for key in jobs_redis.keys("_kombu.binding.*") if "reply" not in str(key)}
    assert bound
    assert not [key for key in bound if "pidbox" in str(key)]
    answering(tasks, 2)
