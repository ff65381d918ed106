"""A consumer takes as many waiting jobs as it has room for, of each queue in turn. No worker runs here."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue

from dspyq.delivery.leases import Leases
from dspyq.store.scripts import load_script
from tests.delivery.consuming import PREFIX, QUEUE, consume, drain
from tests.support.redis_server import RedisServer


def test_one_take_brings_as_many_waiting_jobs_as_there_is_room_for(
    connection: Connection, tasks: ModuleType, redis_server: RedisServer, jobs_redis: redis.Redis
) -> None:
    jobs_redis.script_load(load_script(jobs_redis, "dspyq.delivery", "take").script)  # the first take would
    sent = [tasks.add.apply_async((number, 1), ignore_result=True).id for number in range(12)]
    received: list[Any] = []
    consume(connection, received, prefetch_count=10)
    with redis_server.monitored() as commands:
        drain(connection)
    assert [message.headers["id"] for message in received] == sent[:10]
    assert sum(command.name == "EVALSHA" and not command.is_in_script for command in commands) == 2


def test_where_there_is_room_for_one_a_bell_brings_one(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    for number in range(3):
        tasks.add.apply_async((number, 1), ignore_result=True)
    received: list[Any] = []
    consume(connection, received, prefetch_count=1)
    drain(connection)
    assert len(received) == 1
    assert jobs_redis.zcard(PREFIX + "leases") == 1
    assert jobs_redis.zcard(PREFIX + "queue:plain") == 2


def test_jobs_behind_one_that_ends_the_consumer_go_back(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis, leases: Leases
) -> None:
    sent = [tasks.add.apply_async((number, 1), ignore_result=True).id for number in range(4)]

    def fail(_: Any, message: Any) -> None:
        raise ArithmeticError(message.delivery_tag)

    consumer = Consumer(connection, [Queue(QUEUE, routing_key=QUEUE)], callbacks=[fail], prefetch_count=8)
    consumer.consume()
    with pytest.raises(ArithmeticError):
        drain(connection)
    assert jobs_redis.zrange(PREFIX + "queue:plain", 0, -1) == sent[1:]
    assert leases.held_count == 1


def test_each_of_two_queues_with_many_jobs_gets_its_turn(
    connection: Connection, tasks: ModuleType, records: Any, job: Any
) -> None:
    del tasks
    message = {"body": "W10=", "headers": {"id": "", "task": "add"}, "properties": {"delivery_info": {}}}
    for queue in ("one", "two"):
        for number in range(20):
            text = json.dumps(message | {"headers": {"id": f"{queue} {number}", "task": "add"}})
            records.put(job(f"{queue} {number}", message=text, queue=queue))
    received: list[Any] = []
    consumer = Consumer(
        connection,
        [Queue(name, routing_key=name) for name in ("one", "two")],
        callbacks=[lambda _, message: received.append(message)],
        prefetch_count=20,
    )
    consumer.consume()
    drain(connection)
    assert len(received) == 20
    shares = [sum(message.headers["id"].startswith(queue) for message in received) for queue in ("one", "two")]
    assert min(shares) >= 8
