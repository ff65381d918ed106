"""Odd values in the place of records and bells: each spoils itself alone, and the next good job is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kombu import Connection

from dspyq.delivery.dead import DeadJobs
from dspyq.delivery.leases import Leases
from dspyq.delivery.records import Records
from tests.delivery.consuming import QUEUE, connect, consume, drain
from tests.support.beats import beat_of
from tests.support.redis_server import RedisServer

PREFIX = "dspy:v1:"
REASON = "its record cannot be read"


def test_a_job_whose_record_cannot_be_taken_is_set_aside_and_the_next_is_taken(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    records.put(job("odd"))
    records.put(job("good"))
    jobs_redis.hset(f"{PREFIX}job:odd", "runs", "rubbish")
    delivery = records.take("q", 30)
    assert delivery is not None
    assert delivery.id == "good"
    assert jobs_redis.zscore(f"{PREFIX}dead", "odd") is not None
    assert jobs_redis.zscore(f"{PREFIX}leases", "odd") is None
    assert jobs_redis.hget(f"{PREFIX}job:odd", "reason") == REASON


@pytest.mark.parametrize(("field", "value"), [("lost", "rubbish"), ("score", "rubbish"), ("queue", None)])
def test_a_job_that_cannot_come_back_is_set_aside_and_the_others_come_back(
    records: Records, job: Any, jobs_redis: redis.Redis, field: str, value: str | None
) -> None:
    for name in ("odd", "good"):
        records.put(job(name))
        assert records.take("q", 0.0)
    if value is None:
        jobs_redis.hdel(f"{PREFIX}job:odd", field)
    else:
        jobs_redis.hset(f"{PREFIX}job:odd", field, value)
    sweep = records.sweep(3)
    assert set(sweep.expired) == {"odd", "good"}
    assert sweep.unnotified == ("odd",)
    assert jobs_redis.zrange(f"{PREFIX}queue:q", 0, -1) == ["good"]
    assert jobs_redis.hget(f"{PREFIX}job:odd", "reason") == REASON


def test_another_kind_of_key_in_a_records_place_is_no_job(records: Records, job: Any, jobs_redis: redis.Redis) -> None:
    records.put(job("odd"))
    records.put(job("good"))
    jobs_redis.set(f"{PREFIX}job:odd", "rubbish")
    delivery = records.take("q", 30)
    assert delivery is not None
    assert delivery.id == "good"
    assert records.take("q", 30) is None


def test_another_kind_of_key_in_a_lists_place_keeps_no_other_queue_from_its_bells(
    records: Records, job: Any, jobs_redis: redis.Redis
) -> None:
    for queue in ("q", "a", "z"):
        records.put(job(queue=queue))
    for queue in ("q", "a", "z"):
        jobs_redis.delete(queue)
    jobs_redis.set("q", "rubbish")
    jobs_redis.set(f"{PREFIX}swept", "rubbish")
    assert records.sweep(3).rung == 2


def test_a_dead_job_with_an_odd_record_hides_no_other(
    records: Records, job: Any, jobs_redis: redis.Redis, redis_server: RedisServer
) -> None:
    for name in ("odd", "good"):
        records.put(job(name))
        delivery = records.take("q", 30)
        assert delivery is not None
        records.set_aside(delivery.tag, "a reason")
    jobs_redis.delete(f"{PREFIX}job:odd")
    jobs_redis.hset(f"{PREFIX}job:odd", mapping={"lost": "rubbish", "reason": b"\xff"})
    found = DeadJobs(redis_server.client(decode_responses=False)).find()
    assert {each.id for each in found} == {"odd", "good"}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    job_id=st.binary(min_size=1, max_size=20),
    record=st.dictionaries(
        st.sampled_from(
            ["message", "queue", "score", "runs", "lost", "passed_on_at", "given_up", "fence", "generation", "child"]
        ),
        st.binary(max_size=30) | st.integers().map(lambda number: str(number).encode()),
        min_size=1,
    ),
)
def test_whatever_a_record_holds_a_good_job_behind_it_is_taken_and_nothing_of_it_ends_a_sweep(
    make_leases: Callable[..., Leases], job: Any, redis_server: RedisServer, job_id: bytes, record: dict[bytes, bytes]
) -> None:
    redis_server.flush()
    leases = make_leases()
    beat_of(leases).sweeper.notify_callers = lambda _: None
    with redis_server.client(decode_responses=False) as client:
        client.hset(f"{PREFIX}job:".encode() + job_id, mapping=record)
        client.zadd(f"{PREFIX}queue:q", {job_id: 1})
        client.zadd(f"{PREFIX}leases", {job_id + b"2": 1})
        client.zadd(f"{PREFIX}delayed", {job_id + b"3": 1})
    leases.records.put(job("good", priority=9))
    taken = [delivery.id for _ in range(3) if (delivery := leases.take("q"))]
    assert taken[-1] == "good"
    beat_of(leases).once()
    assert beat_of(leases).failures == 0


messages = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["headers", "properties", "body", "task", "id", "delivery_info", "delivery_tag", "__type__"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(item=st.binary(max_size=100) | messages.map(lambda value: json.dumps(value).encode()))
def test_whatever_lies_on_a_queues_list_the_job_behind_it_is_delivered(
    tasks: ModuleType, redis_server: RedisServer, item: bytes
) -> None:
    redis_server.flush()
    received: list[Any] = []
    connection: Connection
    with redis_server.client() as client, connect(tasks) as connection:
        consume(connection, received)
        client.lpush(QUEUE, item)
        result = tasks.add.apply_async((1, 2), ignore_result=True)
        drain(connection)
    assert result.id in [message.headers.get("id") for message in received]
