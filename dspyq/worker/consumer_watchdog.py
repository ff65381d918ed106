"""Notices a worker that lives but takes no jobs while it could, and restarts its consumer.

A living process says nothing: what counts is that it asks for jobs where jobs wait and it has room.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.delivery.leases import Leases, process_leases
from dspyq.delivery.pauses import process_pauses

logger = logging.getLogger("dspyq.progress")

_LOOK_SECONDS = 1.0
#: A consumer that asks for nothing for so many leases is not helped by restarting it.
_LEASES_BEYOND_HELP = 4


class Progress:
    """Watches one worker's consumer.

    Args:
        consumer: Celery's consumer.
        leases: What the process holds.

    Attributes:
        restarts: How often the consumer was restarted.
        stalled_seconds: For how long it has asked for nothing, though jobs waited and there was room; a restart does
            not end that, asking does.
    """

    def __init__(self, consumer: Any, leases: Leases) -> None:
        self.restarts = 0
        self.stalled_seconds = 0.0
        self._consumer = consumer
        self._leases = leases
        self._could_since: float | None = None
        self._restart_after_seconds = self._lease_seconds = get_settings().delivery.visibility_timeout_seconds

    @property
    def is_stalled(self) -> bool:
        """Whether that is longer than a lease, when the consumer is restarted."""
        return self.stalled_seconds >= self._lease_seconds

    @property
    def is_beyond_help(self) -> bool:
        """Whether restarting the consumer again and again has not helped."""
        return self.stalled_seconds >= _LEASES_BEYOND_HELP * self._lease_seconds

    @property
    def queues(self) -> frozenset[str]:
        """The names of the queues it serves, paused ones too; an operator may have cancelled some."""
        return frozenset(self._consumer.app.amqp.queues.consume_from)

    def look(self) -> None:
        """Restart the consumer if it asked for nothing for a lease's time, though jobs waited and there was room."""
        now = time.monotonic()
        if not self._could_take():
            self._could_since = None
        else:
            self._could_since = max(self._could_since or now, self._leases.asked_at)
        self.stalled_seconds = now - (self._could_since or now)
        if not self.is_stalled:
            self._restart_after_seconds = self._lease_seconds
        if self.stalled_seconds < self._restart_after_seconds:
            return
        self._restart_after_seconds = self.stalled_seconds + self._lease_seconds
        self.restarts += 1
        logger.error(Event("consumer_restarted", reason="jobs wait and this worker has room, but it asks for none"))
        _cut(self._consumer)

    def _could_take(self) -> bool:
        room = get_settings().workers.concurrency * get_settings().workers.prefetch_multiplier
        if self._leases.held_count >= room:
            return False
        return any(self._leases.records.backlog(queue) for queue in self.queues - process_pauses().queues)


def watch(consumer: Any) -> Progress:
    """Watch a worker's consumer until the process ends."""
    progress = Progress(consumer, process_leases())

    def run() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            try:
                progress.look()
            except redis.RedisError:
                continue  # the beat says so, and there is nothing to take either

    threading.Thread(target=run, name="dspyq-progress", daemon=True).start()
    return progress


def _cut(consumer: Any) -> None:
    """End the consumer's connections; Celery then starts it anew, as after any lost connection."""
    for channel in list(consumer.connection.transport.channels if consumer.connection else ()):
        connection = getattr(channel.client, "connection", None)
        stream = connection and connection._sock  # noqa: SLF001 - disconnect() would close it under the reader's feet
        if stream is not None:
            stream.shutdown(socket.SHUT_RDWR)
