"""kombu's side: what is put, delivered, counted and purged, without a worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
import redis
from kombu import Connection, Producer
from kombu.asynchronous import Hub

from dspyq.core.tolerated import tolerated
from dspyq.delivery.leases import Leases
from tests.delivery.consuming import PREFIX, QUEUE, connect, consume, drain
from tests.support.beats import beat_of
from tests.support.redis_server import RedisServer


def test_publishing_a_task_costs_one_round_trip(tasks: ModuleType, redis_server: RedisServer) -> None:
    tasks.add.apply_async((1, 2), ignore_result=True)  # connects and declares the queue
    with redis_server.counted() as usage:
        tasks.add.apply_async((1, 2), ignore_result=True)
    assert usage.round_trips == 1


def test_a_message_that_is_no_task_stays_a_plain_message(connection: Connection, jobs_redis: redis.Redis) -> None:
    Producer(connection).publish({"reply": 1}, routing_key="replies")
    assert jobs_redis.llen("replies") == 1
    assert list(jobs_redis.scan_iter(PREFIX + "*")) == []
    queue = connection.SimpleQueue("replies")
    assert queue.qsize() == 1
    assert queue.get(timeout=30).payload == {"reply": 1}


def test_a_delivery_carries_the_runs_tag(connection: Connection, tasks: ModuleType) -> None:
    received: list[Any] = []
    consume(connection, received)
    result = tasks.add.apply_async((1, 2), ignore_result=True)
    drain(connection)
    (message,) = received
    assert message.delivery_tag == message.properties["delivery_tag"]
    assert message.delivery_tag.rpartition(":")[0] == result.id
    assert not message.delivery_info["redelivered"]


def test_an_acknowledged_job_is_gone(connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis) -> None:
    received: list[Any] = []
    consume(connection, received)
    tasks.add.apply_async((1, 2), ignore_result=True)
    drain(connection)
    received[0].ack()
    assert set(jobs_redis.scan_iter(PREFIX + "*")) == {PREFIX + "queues", PREFIX + "seq"}


def test_jobs_are_delivered_by_priority(connection: Connection, tasks: ModuleType) -> None:
    sent = {priority: tasks.add.apply_async((1, 2), priority=priority, ignore_result=True).id for priority in (9, 0, 4)}
    received: list[Any] = []
    consume(connection, received)
    drain(connection)
    assert [message.headers["id"] for message in received] == [sent[0], sent[4], sent[9]]


def test_sending_an_id_again_more_urgently_improves_its_turn(connection: Connection, tasks: ModuleType) -> None:
    waiting = tasks.add.apply_async((1, 2), priority=9, ignore_result=True)
    other = tasks.add.apply_async((1, 2), priority=5, ignore_result=True)
    tasks.add.apply_async((1, 2), task_id=waiting.id, priority=0, ignore_result=True)
    received: list[Any] = []
    consume(connection, received)
    drain(connection)
    assert [message.headers["id"] for message in received] == [waiting.id, other.id]


@pytest.mark.parametrize("timezone", [UTC, None], ids=["aware", "naive"])
def test_an_eta_becomes_a_delay_in_redis_and_leaves_the_message(
    connection: Connection, jobs_redis: redis.Redis, timezone: Any
) -> None:
    moment = datetime.now(UTC)
    eta = (moment + timedelta(seconds=60)).replace(tzinfo=timezone)
    headers = {"id": "one", "task": "add", "eta": eta.isoformat()}
    Producer(connection).publish([], routing_key=QUEUE, headers=headers)
    late_seconds = jobs_redis.zscore(PREFIX + "delayed", "one") - moment.timestamp() - 60  # the delay is counted anew
    assert -0.001 <= late_seconds <= (datetime.now(UTC) - moment).total_seconds()
    assert '"eta": null' in jobs_redis.hget(PREFIX + "job:one", "message")


def test_an_eta_that_has_passed_waits_for_nothing(connection: Connection, jobs_redis: redis.Redis) -> None:
    headers = {"id": "one", "task": "add", "eta": "2020-01-01T00:00:00Z"}
    Producer(connection).publish([], routing_key=QUEUE, headers=headers)
    assert jobs_redis.zscore(PREFIX + "queue:plain", "one") is not None


def test_a_batch_is_published_in_one_pipeline(tasks: ModuleType, redis_server: RedisServer) -> None:
    tasks.add.apply_async((1, 2), ignore_result=True)
    with tasks.app.producer_or_acquire() as producer:
        assert producer.supports_batch_publish
        with redis_server.counted() as usage, producer.batch(50):
            for number in range(20):
                tasks.add.apply_async((number, 1), producer=producer, ignore_result=True)
    assert usage.commands["evalsha"] == 20
    # a pipeline of more than 16 KB is read in parts; its first command asks whether the script is known
    assert usage.round_trips < 6


def test_the_size_of_a_queue_is_its_waiting_jobs_whatever_its_bells(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    for _ in range(3):
        tasks.add.apply_async((1, 2), ignore_result=True)
    jobs_redis.lpush(QUEUE, "1", "1")
    assert connection.SimpleQueue(QUEUE).qsize() == 3
    jobs_redis.delete(QUEUE)
    assert connection.SimpleQueue(QUEUE).qsize() == 3


def test_purging_a_queue_removes_its_records_and_counts_them(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    for _ in range(3):
        tasks.add.apply_async((1, 2), ignore_result=True)
    assert connection.SimpleQueue(QUEUE).clear() == 3
    assert list(jobs_redis.scan_iter(PREFIX + "job:*")) == []
    assert not jobs_redis.exists(QUEUE)


def test_purging_a_queue_of_plain_messages_counts_those(connection: Connection) -> None:
    producer = Producer(connection)
    for _ in range(2):
        producer.publish("reply", routing_key="replies")
    assert connection.SimpleQueue("replies").clear() == 2


def test_a_job_can_be_fetched_by_hand(connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis) -> None:
    result = tasks.add.apply_async((1, 2), ignore_result=True)
    channel = connection.default_channel
    message = channel.basic_get(QUEUE)
    assert message.headers["id"] == result.id
    channel.basic_ack(message.delivery_tag)
    assert channel.basic_get(QUEUE) is None
    assert list(jobs_redis.scan_iter(PREFIX + "job:*")) == []


def test_doubled_bells_deliver_nothing_twice(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    received: list[Any] = []
    consume(connection, received)
    tasks.add.apply_async((1, 2), ignore_result=True)
    jobs_redis.lpush(QUEUE, "1", "1", "1")
    drain(connection)
    assert len(received) == 1


def test_a_lost_bell_is_rung_again(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis, leases: Leases
) -> None:
    received: list[Any] = []
    consume(connection, received)
    tasks.add.apply_async((1, 2), ignore_result=True)
    jobs_redis.delete(QUEUE)
    drain(connection)
    assert received == []
    beat_of(leases).once()
    drain(connection)
    assert len(received) == 1


def test_a_bell_for_a_queue_that_is_not_consumed_takes_nothing(
    connection: Connection, tasks: ModuleType, leases: Leases
) -> None:
    tasks.add.apply_async((1, 2), ignore_result=True)
    connection.transport._deliver(1, QUEUE)  # noqa: SLF001 - as when a consumer is cancelled between bell and reply
    assert leases.records.backlog(QUEUE) == 1


def test_closing_a_connection_returns_nothing_and_the_run_can_still_end(
    tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    received: list[Any] = []
    with connect(tasks) as connection:
        consume(connection, received)
        tasks.add.apply_async((1, 2), ignore_result=True)
        drain(connection)
    assert jobs_redis.zcard(PREFIX + "leases") == 1
    assert jobs_redis.zcard(PREFIX + "queue:plain") == 0
    received[0].ack()
    assert list(jobs_redis.scan_iter(PREFIX + "job:*")) == []


def test_closing_a_connection_does_not_bring_back_a_job_that_ended_elsewhere(
    tasks: ModuleType, jobs_redis: redis.Redis, leases: Leases
) -> None:
    received: list[Any] = []
    with connect(tasks) as connection:
        consume(connection, received)
        tasks.add.apply_async((1, 2), ignore_result=True)
        drain(connection)
        leases.records.finish(received[0].delivery_tag)
    assert list(jobs_redis.scan_iter(PREFIX + "job:*")) == []


def test_a_consumer_waits_for_one_list_a_queue(connection: Connection, redis_server: RedisServer) -> None:
    with redis_server.monitored() as commands:
        consume(connection, [])
        drain(connection)
    waits = {command.text for command in commands if command.name == "BRPOP"}
    assert waits == {f"BRPOP {QUEUE} 0.05"}


def test_a_lost_run_makes_room_for_another_job(connection: Connection, tasks: ModuleType, leases: Leases) -> None:
    received: list[Any] = []
    consume(connection, received, prefetch_count=1)
    for _ in range(2):
        tasks.add.apply_async((1, 2), ignore_result=True)
    drain(connection)
    assert len(received) == 1
    leases.records.finish(received[0].delivery_tag)  # as another process would
    beat_of(leases).once()
    drain(connection)
    assert len(received) == 2


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_job_rejected_by_its_run_comes_back_and_one_that_cannot_run_is_set_aside(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis, leases: Leases, *, is_begun: bool
) -> None:
    received: list[Any] = []
    consume(connection, received)
    result = tasks.add.apply_async((1, 2), ignore_result=True)
    drain(connection)
    if is_begun:
        assert leases.begin(received[0].delivery_tag)
    received[0].reject(requeue=False)
    drain(connection)
    assert len(received) == 1
    place = "leases" if is_begun else "dead"
    assert jobs_redis.zscore(PREFIX + place, result.id) is not None


def test_a_tasks_message_on_the_list_becomes_a_job_and_is_none_beside_its_own_record(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis
) -> None:
    result = tasks.add.apply_async((1, 2), ignore_result=True)
    message = json.loads(jobs_redis.hget(PREFIX + f"job:{result.id}", "message") or "")
    foreign = json.dumps({**message, "headers": {**message["headers"], "id": "foreign"}})
    odd = json.dumps({**message, "headers": {**message["headers"], "id": ["odd"]}})
    received: list[Any] = []
    consume(connection, received)
    jobs_redis.lpush(QUEUE, json.dumps(message), odd, foreign)
    drain(connection)
    assert [message.delivery_tag.partition(":")[0] for message in received] == [result.id, "foreign"]  # each once
    assert jobs_redis.exists(PREFIX + "job:foreign")  # leased, so that it comes back should this worker die


@pytest.fixture
def foreign(tasks: ModuleType, jobs_redis: redis.Redis) -> str:
    """The message of a task that another application sends."""
    result = tasks.add.apply_async((1, 2), ignore_result=True)
    message = json.loads(jobs_redis.hget(PREFIX + f"job:{result.id}", "message") or "")
    jobs_redis.flushdb()
    return json.dumps({**message, "headers": {**message["headers"], "id": "foreign"}})


def test_a_foreign_task_that_redis_refuses_to_store_is_stored_by_a_later_beat(
    connection: Connection, foreign: str, jobs_redis: redis.Redis, leases: Leases
) -> None:
    received: list[Any] = []
    consume(connection, received)
    jobs_redis.lpush(QUEUE, foreign)
    jobs_redis.config_set("maxmemory", 1)
    try:
        drain(connection)
        assert not jobs_redis.exists(QUEUE)  # popped
        assert not jobs_redis.exists(PREFIX + "job:foreign")
        beat_of(leases).once()  # Redis refuses still
    finally:
        jobs_redis.config_set("maxmemory", 0)
    beat_of(leases).once()
    drain(connection)
    assert [message.delivery_tag.partition(":")[0] for message in received] == ["foreign"]


def test_a_foreign_task_that_is_too_large_is_refused_and_the_next_is_taken(
    connection: Connection, foreign: str, jobs_redis: redis.Redis, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Any] = []
    consume(connection, received)
    monkeypatch.setattr(leases.records, "_most_bytes", 10)
    before = tolerated("list_item")
    jobs_redis.lpush(QUEUE, foreign)
    drain(connection)
    assert tolerated("list_item") == before + 1
    monkeypatch.undo()
    monkeypatch.setattr("dspyq.delivery.transport.process_leases", lambda: leases)
    jobs_redis.lpush(QUEUE, foreign)
    drain(connection)
    assert [message.delivery_tag.partition(":")[0] for message in received] == ["foreign"]


def test_a_plain_message_that_is_rejected_comes_back_as_kombu_has_it(connection: Connection) -> None:
    received: list[Any] = []
    consume(connection, received)
    Producer(connection).publish("plain", routing_key=QUEUE)
    drain(connection)
    received[0].reject(requeue=True)
    drain(connection)
    received[1].reject(requeue=False)
    drain(connection)
    assert [message.payload for message in received] == ["plain", "plain"]


@pytest.mark.parametrize(
    "broken",
    [
        "no JSON",
        "[]",
        "{}",
        '{"properties": {"__type__": "unknown", "__value__": 1}}',
        '{"headers": {"id": "of another job"}, "properties": {"delivery_info": {}}, "body": ""}',
    ],
)
def test_a_record_that_cannot_be_read_is_set_aside_named_and_keeps_no_one_waiting(
    connection: Connection, tasks: ModuleType, jobs_redis: redis.Redis, caplog: Any, broken: str
) -> None:
    bad, good = (tasks.add.apply_async((1, 2), ignore_result=True) for _ in range(2))
    jobs_redis.hset(PREFIX + f"job:{bad.id}", "message", broken)
    received: list[Any] = []
    consume(connection, received)
    drain(connection)
    assert [message.headers["id"] for message in received] == [good.id]
    assert jobs_redis.hget(PREFIX + f"job:{bad.id}", "message") == broken
    assert jobs_redis.zscore(PREFIX + "leases", bad.id) is None
    assert bad.id in caplog.text


def test_a_worker_registers_what_it_reads_from_once_and_anew_after_a_reconnect(tasks: ModuleType) -> None:
    hub, received = Hub(), []
    registered: list[int] = []
    add_reader = hub.add_reader
    hub.add_reader = lambda fd, *callback: (registered.append(fd), add_reader(fd, *callback))
    with connect(tasks) as connection:
        consume(connection, received)
        connection.register_with_event_loop(hub)
        turn(hub, 5)
        assert registered
        assert len(registered) == len(set(registered))
        tasks.add.delay(1, 2)
        wait_for(hub, lambda: len(received) == 1)
        before = len(registered)
        connection.default_channel.client.connection.disconnect()
        tasks.add.delay(3, 4)
        wait_for(hub, lambda: len(received) == 2)
        assert len(registered) > before
    hub.close()


def turn(hub: Hub, times: int) -> None:
    for _ in range(times):
        hub.call_soon(lambda: None)
        hub.run_once()


def wait_for(hub: Hub, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        hub.call_later(0.05, lambda: None)
        hub.run_once()
