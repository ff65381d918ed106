"""A consumer on a connection of kombu, and what is delivered to it, without a worker."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from types import ModuleType
from typing import Any

from kombu import Connection, Consumer, Queue

from tests.support.processes import eventually

QUEUE = "plain"
PREFIX = "dspy:v1:"
#: Of a channel: it need not wait a second for a bell when it is closed.
POLLING_SECONDS = 0.05


def connect(tasks: ModuleType) -> Connection:
    connection: Connection = tasks.app.connection_for_read(transport_options={"polling_interval": POLLING_SECONDS})
    return connection


def consume(connection: Connection, received: list[Any], *, prefetch_count: int = 0) -> Consumer:
    consumer = Consumer(
        connection,
        [Queue(QUEUE, routing_key=QUEUE)],
        callbacks=[lambda _, message: received.append(message)],
        prefetch_count=prefetch_count,
    )
    consumer.consume()
    return consumer


def drain(connection: Connection) -> None:
    """Deliver what there is: until nothing came of a wait in Redis that began here, or no room is left."""
    channel, replies = connection.default_channel, []
    read = channel.handlers["BRPOP"]

    def read_and_note(**options: Any) -> Any:
        try:
            return read(**options)
        except Empty:
            replies.append("nothing")
            raise

    def is_drained() -> bool:
        with suppress(socket.timeout):
            connection.drain_events(timeout=2 * POLLING_SECONDS)
        return len(replies) >= 2 or not channel.qos.can_consume()  # the first may be of a wait that began before

    channel.handlers["BRPOP"] = read_and_note
    try:
        eventually(is_drained)
    finally:
        channel.handlers["BRPOP"] = read


def drain_until(connection: Connection, condition: Callable[[], Any]) -> None:
    """Deliver what there is until a condition is true."""

    def is_true() -> bool:
        drain(connection)
        return bool(condition())

    eventually(is_true, 30)
