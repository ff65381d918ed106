"""Each script alone, over a real server."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from dspyq.delivery import records as records_module
from dspyq.delivery.records import Delivery, QueuedJob, Records
from dspyq.errors import InputsTooLarge
from tests.support.redis_server import RedisServer

PREFIX = "dspy:v1:"
SHORT_LEASE_SECONDS = 0.05


def places(client: redis.Redis, job_id: str) -> list[str]:
    """The place of a job; always one place while it is unfinished."""
    candidates = [PREFIX + "delayed", PREFIX + "leases", *client.scan_iter(PREFIX + "queue:*")]
    return [key.removeprefix(PREFIX) for key in candidates if client.zscore(key, job_id) is not None]


def take(records: Records, queue: str = "q", lease_seconds: float = 30.0) -> Delivery:
    delivery = records.take(queue, lease_seconds)
    assert delivery is not None
    return delivery


MAX_DELIVERIES = 3


def expire_and_sweep(records: Records) -> None:
    time.sleep(2 * SHORT_LEASE_SECONDS)
    records.sweep(MAX_DELIVERIES)


def test_a_job_waits_in_its_queue_and_rings_once(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    assert records.put(job("one"))
    assert places(jobs_redis, "one") == ["queue:q"]
    assert jobs_redis.lrange("q", 0, -1) == ["1"]
    assert records.backlog("q") == 1


def test_jobs_are_taken_by_priority_and_then_in_the_order_they_were_put(records: Records, job: Any) -> None:
    for job_id, priority in [("late", 9), ("first", 3), ("second", 3), ("urgent", 0)]:
        records.put(job(job_id, priority=priority))
    assert [take(records).id for _ in range(4)] == ["urgent", "first", "second", "late"]


def test_the_order_holds_at_the_least_urgent_priority(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    jobs_redis.set(PREFIX + "seq", 2**40)
    for job_id in ("c", "b", "a"):
        records.put(job(job_id, priority=9))
    assert [take(records).id for _ in range(3)] == ["c", "b", "a"]


def test_a_taken_job_stands_among_the_leases_alone(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one", message="text"))
    taken_from = time.time()
    delivery = take(records, lease_seconds=30)
    taken_until = time.time()
    assert (delivery.id, delivery.message, delivery.tag) == ("one", b"text", f"one:{delivery.fence}")
    assert delivery.run_count == 1
    assert places(jobs_redis, "one") == ["leases"]
    assert taken_from - 0.01 <= jobs_redis.zscore(PREFIX + "leases", "one") - 30 <= taken_until + 0.01


def test_a_run_that_a_restarted_redis_has_forgotten_has_another_number_than_the_next_one(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one"))
    sequence, record = str(jobs_redis.get(PREFIX + "seq")), jobs_redis.hgetall(PREFIX + "job:one")
    forgotten = take(records)
    jobs_redis.set(PREFIX + "seq", sequence)  # as after a restart without its latest writes
    jobs_redis.delete(PREFIX + "job:one", PREFIX + "leases")
    jobs_redis.hset(PREFIX + "job:one", mapping=record)
    jobs_redis.zadd(PREFIX + "queue:q", {"one": record["score"]})
    again = take(records)
    assert again.fence > forgotten.fence
    assert not records.finish(forgotten.tag)
    assert records.finish(again.tag)


def test_an_empty_queue_gives_nothing(records: Records) -> None:
    assert records.take("q", 30) is None


def test_an_id_without_a_record_is_not_delivered(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("gone"))
    records.put(job("there"))
    jobs_redis.delete(PREFIX + "job:gone")
    assert take(records).id == "there"


def test_finishing_leaves_nothing_of_the_job(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one"))
    assert records.finish(take(records).tag)
    assert set(jobs_redis.scan_iter(PREFIX + "*")) == {PREFIX + "queues", PREFIX + "seq"}


def test_a_run_that_lost_its_job_cannot_finish_it(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one"))
    first = take(records, lease_seconds=SHORT_LEASE_SECONDS)
    expire_and_sweep(records)
    second = take(records)
    assert second.fence > first.fence
    assert not records.finish(first.tag)
    assert places(jobs_redis, "one") == ["leases"]
    assert records.finish(second.tag)


def test_a_late_run_finishes_its_job_while_no_other_run_has_it(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one"))
    delivery = take(records, lease_seconds=SHORT_LEASE_SECONDS)
    expire_and_sweep(records)
    assert places(jobs_redis, "one") == ["queue:q"]
    assert records.finish(delivery.tag)
    assert places(jobs_redis, "one") == []
    assert records.take("q", 30) is None


def test_a_renewed_lease_runs_from_the_renewal(records: Records, job: Any) -> None:
    records.put(job("one"))
    delivery = take(records, lease_seconds=SHORT_LEASE_SECONDS)
    assert records.renew([delivery.tag], 30) == frozenset()
    time.sleep(2 * SHORT_LEASE_SECONDS)
    assert records.sweep(MAX_DELIVERIES).expired == ()


def test_a_renewal_takes_back_an_expired_job_that_no_run_took(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one"))
    delivery = take(records, lease_seconds=SHORT_LEASE_SECONDS)
    expire_and_sweep(records)
    assert records.renew([delivery.tag], 30) == frozenset()
    assert places(jobs_redis, "one") == ["leases"]


def test_a_renewal_names_the_runs_that_lost_their_job(records: Records, job: Any) -> None:
    for job_id in ("kept", "finished", "taken"):
        records.put(job(job_id))
    kept, finished, taken = (take(records, lease_seconds=SHORT_LEASE_SECONDS) for _ in range(3))
    records.finish(finished.tag)
    records.renew([kept.tag], 30)
    expire_and_sweep(records)
    take(records)
    tags = [kept.tag, finished.tag, "never:1", taken.tag]
    assert records.renew(tags, 30) == {finished.tag, "never:1", taken.tag}


def test_a_delayed_job_is_taken_only_when_it_is_due(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    put_from = time.time()
    records.put(job("one", delay_seconds=60))
    assert put_from - 0.01 <= jobs_redis.zscore(PREFIX + "delayed", "one") - 60 <= time.time() + 0.01
    assert records.sweep(MAX_DELIVERIES).due == 0
    assert places(jobs_redis, "one") == ["delayed"]
    assert jobs_redis.llen("q") == 0
    jobs_redis.zincrby(PREFIX + "delayed", -60, "one")  # as after a minute
    assert records.sweep(MAX_DELIVERIES).due == 1
    assert jobs_redis.llen("q") == 1
    assert take(records).id == "one"


def test_an_expired_lease_returns_the_job_to_its_turn_and_is_counted(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    for job_id in ("first", "second"):
        records.put(job(job_id))
    take(records, lease_seconds=SHORT_LEASE_SECONDS)
    jobs_redis.delete("q")
    time.sleep(2 * SHORT_LEASE_SECONDS)
    assert records.sweep(MAX_DELIVERIES).expired == ("first",)
    assert jobs_redis.hget(PREFIX + "job:first", "lost") == "1"
    assert jobs_redis.llen("q") == 2
    assert [take(records).id, take(records).id] == ["first", "second"]


def test_a_lease_without_a_record_leaves_nothing_when_it_runs_out(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one"))
    take(records, lease_seconds=SHORT_LEASE_SECONDS)
    jobs_redis.delete(PREFIX + "job:one")
    expire_and_sweep(records)
    assert set(jobs_redis.scan_iter(PREFIX + "*")) == {PREFIX + "queues", PREFIX + "seq", PREFIX + "swept"}


def test_lost_bells_are_rung_again_and_no_more_than_jobs_wait(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    for _ in range(3):
        records.put(job())
    jobs_redis.delete("q")
    assert [records.sweep(MAX_DELIVERIES).rung, records.sweep(MAX_DELIVERIES).rung] == [3, 0]
    assert jobs_redis.llen("q") == 3


def test_a_sweep_with_more_to_do_is_incomplete(
    records: Records, job: Any, jobs_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "BATCH_SIZE", 10)
    for number in range(25):
        records.put(job(queue=f"q{number % 2}"))
    jobs_redis.delete("q0", "q1")
    sweeps = [records.sweep(MAX_DELIVERIES) for _ in range(3)]
    assert [sweep.rung for sweep in sweeps] == [10, 10, 5]
    assert [sweep.is_complete for sweep in sweeps] == [False, False, True]


def test_a_more_urgent_put_of_the_same_id_improves_its_turn(records: Records, job: Any) -> None:
    records.put(job("other", priority=5))
    records.put(job("one", message="the first", priority=9))
    assert not records.put(job("one", message="the joiner's", priority=0))
    assert (take(records).id, records.backlog("q")) == ("one", 1)


def test_the_urgent_joiners_message_is_not_the_one_that_runs(records: Records, job: Any) -> None:
    records.put(job("one", message="the first", priority=9))
    records.put(job("one", message="the joiner's", priority=0))
    assert take(records).message == b"the first"


def test_a_less_urgent_put_of_the_same_id_changes_nothing(records: Records, job: Any) -> None:
    records.put(job("one", priority=3))
    records.put(job("other", priority=5))
    assert not records.put(job("one", priority=9))
    assert [take(records).id, take(records).id] == ["one", "other"]


def test_joining_a_run_leaves_it_alone_but_improves_the_turn_it_would_regain(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one", priority=9))
    delivery = take(records, lease_seconds=SHORT_LEASE_SECONDS)
    records.put(job("other", priority=5))
    assert not records.put(job("one", priority=0))
    assert places(jobs_redis, "one") == ["leases"]
    assert records.renew([delivery.tag], SHORT_LEASE_SECONDS) == frozenset()
    expire_and_sweep(records)
    assert [take(records).id, take(records).id] == ["one", "other"]


def test_joining_a_delayed_job_does_not_bring_it_forward(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one", priority=9, delay_seconds=60))
    assert not records.put(job("one", priority=0))
    assert places(jobs_redis, "one") == ["delayed"]


def test_a_retry_ends_the_run_that_sent_it(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one", message="first", priority=9))
    delivery = take(records)
    assert records.put(job("one", message="second", priority=9, delay_seconds=60, generation=1))
    assert places(jobs_redis, "one") == ["delayed"]
    assert not records.finish(delivery.tag)
    assert records.renew([delivery.tag], 30) == {delivery.tag}
    assert jobs_redis.hget(PREFIX + "job:one", "message") == "second"


def test_a_retry_may_change_its_queue_and_stands_there_alone(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one"))
    take(records, lease_seconds=SHORT_LEASE_SECONDS)
    expire_and_sweep(records)
    records.put(job("one", queue="other", generation=1))
    assert places(jobs_redis, "one") == ["queue:other"]


def test_a_newer_retry_takes_the_place_of_one_that_is_delayed(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("one", generation=1, delay_seconds=60))
    records.put(job("one", generation=2))
    assert places(jobs_redis, "one") == ["queue:q"]


def test_a_retry_sent_twice_counts_once(records: Records, job: Any) -> None:
    records.put(job("one"))
    take(records)
    assert records.put(job("one", generation=1))
    delivery = take(records)
    assert not records.put(job("one", generation=1))
    assert records.finish(delivery.tag)


@pytest.mark.parametrize("way", ["finish", "end", "purge"])
def test_what_the_runs_of_a_job_paid_for_is_forgotten_with_it(
    records: Records, job: Any, jobs_redis: redis.Redis, way: str
) -> None:
    records.put(job("one"))
    jobs_redis.hset(PREFIX + "calls:one", "request", "reply")
    if way == "finish":
        records.finish(take(records).tag)
    elif way == "end":
        records.end(["one"])
    else:
        records.purge("q")
    assert not jobs_redis.exists(PREFIX + "calls:one")


def test_purging_removes_what_waits_and_its_bells_and_nothing_else(
    records: Records, job: Any, jobs_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "BATCH_SIZE", 10)
    records.put(job("leased"))
    take(records)
    records.put(job("delayed", delay_seconds=60))
    records.put(job("elsewhere", queue="other"))
    for _ in range(25):
        records.put(job())
    assert records.purge("q") == 25
    left = {key.removeprefix(PREFIX + "job:") for key in jobs_redis.scan_iter(PREFIX + "job:*")}
    assert left == {"leased", "delayed", "elsewhere"}
    assert not jobs_redis.exists("q")


def test_a_job_set_aside_keeps_its_record_and_runs_no_more(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("one"))
    delivery = take(records)
    assert records.set_aside(delivery.tag, "a reason")
    assert places(jobs_redis, "one") == []
    assert jobs_redis.hget(PREFIX + "job:one", "message") == "{}"
    assert records.renew([delivery.tag], 30) == {delivery.tag}


@pytest.mark.parametrize(
    ("alias", "is_claimed"),
    [
        ({"pending": "one"}, True),
        ({"pending": "another"}, False),
        ({"pending": "one", "answered": "another"}, False),
        (None, False),
    ],
)
def test_taking_a_job_returns_if_its_question_is_claimed_for_it(
    records: Records, job: Any, jobs_redis: redis.Redis, alias: dict[str, str] | None, *, is_claimed: bool
) -> None:
    if alias:
        jobs_redis.hset(PREFIX + "prediction:abc123", mapping=alias)
    records.put(job("one")._replace(message='{"headers": {"dspyq": {"input_hash": "abc123"}}}'))
    assert take(records).is_claimed is is_claimed


def test_many_threads_take_each_job_once(records: Records, job: Any) -> None:
    for number in range(400):
        records.put(job(str(number)))

    def take_all(_: int) -> list[str]:
        taken = []
        while delivery := records.take("q", 30):
            taken.append(delivery.id)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = Counter(job_id for ids in pool.map(take_all, range(8)) for job_id in ids)
    assert taken == Counter(str(number) for number in range(400))


def test_many_sweeps_at_once_return_each_job_once(
    make_records: Callable[[], Records], job: Any, jobs_redis: redis.Redis
) -> None:
    records = make_records()
    for number in range(200):
        records.put(job(str(number)))
    while records.take("q", SHORT_LEASE_SECONDS):
        pass
    time.sleep(2 * SHORT_LEASE_SECONDS)
    with ThreadPoolExecutor(8) as pool:
        sweeps = list(pool.map(lambda each: each.sweep(MAX_DELIVERIES), [make_records() for _ in range(8)]))
    assert sum(len(sweep.expired) for sweep in sweeps) == 200
    assert {jobs_redis.hget(PREFIX + f"job:{number}", "lost") for number in range(200)} == {"1"}
    assert records.backlog("q") == 200


def _put_all(url: str, process: int) -> None:
    records = Records(redis.Redis.from_url(url))
    for number in range(100):
        records.put(QueuedJob(id=f"{number}", message=str(process), queue="q", priority=process))


def test_processes_that_put_one_id_at_once_make_one_job_with_the_most_urgent_turn(
    records: Records, redis_server: RedisServer
) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_put_all, args=(redis_server.url, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert records.backlog("q") == 100
    scores = redis_server.client().zrange(PREFIX + "queue:q", 0, -1, withscores=True)
    assert {int(score // 2**49) for _, score in scores} == {0}


def test_a_full_redis_refuses_new_jobs_whole_and_lets_old_ones_move_and_end(
    fresh_redis_server: Callable[..., RedisServer], job: Any
) -> None:
    server = fresh_redis_server()
    client = server.client()
    records = Records(server.client(decode_responses=False))
    for job_id in ("lost", "running", "waiting"):
        records.put(job(job_id))
    take(records, lease_seconds=SHORT_LEASE_SECONDS)
    running = take(records)
    time.sleep(2 * SHORT_LEASE_SECONDS)
    server.cli("CONFIG", "SET", "maxmemory", "1")

    with pytest.raises(redis.exceptions.OutOfMemoryError):
        records.put(job("new"))
    assert client.exists(PREFIX + "job:new") == 0
    assert records.renew([running.tag], 30) == frozenset()
    assert records.finish(running.tag)
    assert records.sweep(MAX_DELIVERIES).expired == ("lost",)
    assert [take(records).id, take(records).id] == ["lost", "waiting"]


def test_a_record_larger_than_it_may_be_is_refused_when_put_and_set_aside_unread_when_taken(
    redis_server: RedisServer, job: Any
) -> None:
    client = redis_server.client(decode_responses=False)
    bounded = Records(client, most_bytes=1_000)
    with pytest.raises(InputsTooLarge, match=r"delivery\.max_job_bytes"):
        bounded.put(job("large")._replace(message="x" * 1_001))
    Records(client).put(job("large")._replace(message="x" * 1_001))
    bounded.put(job("good"))
    delivery = bounded.take("q", 30)
    assert delivery is not None
    assert delivery.id == "good"
    assert client.zscore("dspy:v1:dead", "large")
    assert b"max_job_bytes" in client.hget("dspy:v1:job:large", "reason")


def test_one_bell_brings_a_job_for_each_bell_that_no_worker_waits_for(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    for number in range(5):
        records.put(job(str(number), priority=5 - number))
    jobs_redis.rpop("q")  # as a worker's BRPOP
    taken = records.take_many("q", 30, most=4)
    assert [delivery.id for delivery in taken] == ["4", "3", "2", "1"]
    assert [delivery.run_count for delivery in taken] == [1, 1, 1, 1]
    assert [places(jobs_redis, delivery.id) for delivery in taken] == [["leases"]] * 4
    assert jobs_redis.lrange("q", 0, -1) == ["1"]
    jobs_redis.rpop("q")
    assert [delivery.id for delivery in records.take_many("q", 30, most=4)] == ["0"]


def test_a_bell_leaves_the_jobs_to_those_that_have_theirs(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    for number in range(3):
        records.put(job(str(number)))
    for _ in range(3):  # three workers were waiting
        jobs_redis.rpop("q")
    assert [[each.id for each in records.take_many("q", 30, most=8)] for _ in range(3)] == [["0"], ["1"], ["2"]]


def test_taking_several_leaves_what_is_no_bell(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    jobs_redis.lpush("q", "a foreign message")
    for number in range(3):
        records.put(job(str(number)))
    assert len(records.take_many("q", 30, most=8)) == 3
    assert jobs_redis.lrange("q", 0, -1) == ["a foreign message"]


def test_jobs_taken_together_have_runs_of_their_own(records: Records, job: Any) -> None:
    for job_id in ("one", "two"):
        records.put(job(job_id))
    first, second = records.take_many("q", 30, most=2)
    assert records.finish(first.tag)
    assert records.give_back([second.tag]) == 1
    (again,) = records.take_many("q", 30, most=2)
    assert (again.id, again.run_count) == ("two", 2)
    assert again.fence > second.fence
    assert not records.finish(second.tag)


def test_a_damaged_job_does_not_keep_others_from_being_taken_with_it(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    for job_id in ("one", "damaged", "two"):
        records.put(job(job_id))
    jobs_redis.hset(PREFIX + "job:damaged", "runs", "many")
    assert [delivery.id for delivery in records.take_many("q", 30, most=8)] == ["one", "two"]
    assert places(jobs_redis, "damaged") == []
    assert jobs_redis.zscore(PREFIX + "dead", "damaged") is not None
