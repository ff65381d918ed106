"""Watchdog that restarts the consumer of a live worker that takes no jobs although it could.

A live process is no proof: the watchdog checks that the consumer polls while jobs wait and there is room.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.runtime import bound
from dspyq.core.tolerated import survived
from dspyq.delivery.leases import Leases, process_leases
from dspyq.delivery.pauses import process_pauses
from dspyq.delivery.served_spines import process_held_runs, process_served_spines

logger = logging.getLogger("dspyq.progress")

_LOOK_SECONDS = 1.0
#: After this many leases without a poll, restarting the consumer does not help.
_LEASES_BEYOND_HELP = 4


class ConsumerWatchdog:
    """Watches one worker's consumer.

    Args:
        consumer: Celery's consumer.

    Attributes:
        restarts: Number of restarts of the consumer.
        stalled_seconds: Seconds without a poll although jobs waited and there was room; ended by a poll, not by a
            restart.
    """

    def __init__(self, consumer: Any) -> None:
        self.restarts = 0
        self.stalled_seconds = 0.0
        self._consumer = consumer
        self._could_since: dict[Leases, float] = {}
        self._restart_after_seconds = self._lease_seconds = get_settings().delivery.visibility_timeout_seconds

    @property
    def is_stalled(self) -> bool:
        """Return True if the stall is longer than a lease, which is when the consumer is restarted."""
        return self.stalled_seconds >= self._lease_seconds

    @property
    def is_beyond_help(self) -> bool:
        """Return True if repeated restarts of the consumer have not helped."""
        return self.stalled_seconds >= _LEASES_BEYOND_HELP * self._lease_seconds

    @property
    def queues(self) -> frozenset[str]:
        """The names of the queues it serves, paused ones too; an operator may have cancelled some."""
        return frozenset(self._consumer.app.amqp.queues.consume_from)

    def check(self) -> None:
        """Restart the consumer if it has not polled for a lease's time, although jobs waited and there was room."""
        now = time.monotonic()
        has_room = process_held_runs().held_count < self._room()
        for _ in process_served_spines().each():
            self._look(process_leases(), now, has_room=has_room)
        self.stalled_seconds = now - min(self._could_since.values(), default=now)
        if not self.is_stalled:
            self._restart_after_seconds = self._lease_seconds
        if self.stalled_seconds < self._restart_after_seconds:
            return
        self._restart_after_seconds = self.stalled_seconds + self._lease_seconds
        self.restarts += 1
        logger.error(Event("consumer_restarted", reason="jobs wait and there is room, but the consumer does not poll"))
        _cut(self._consumer)

    def _look(self, leases: Leases, now: float, *, has_room: bool) -> None:
        """Note since when jobs of the active spine could be taken and none is asked for."""
        could_take = False
        with suppress(redis.RedisError):  # the beat logs it, and nothing can be taken
            could_take = has_room and self._has_jobs(leases)
        if could_take:
            self._could_since[leases] = max(self._could_since.get(leases, now), leases.asked_at)
        else:
            self._could_since.pop(leases, None)

    @staticmethod
    def _room() -> int:
        workers = get_settings().workers
        return workers.concurrency * workers.prefetch_multiplier

    def _has_jobs(self, leases: Leases) -> bool:
        wanted = self.queues - process_pauses().queues
        return any(leases.records.backlog(queue) for queue in leases.records.queues() & wanted)


def watch(consumer: Any) -> ConsumerWatchdog:
    """Watch a worker's consumer until the process ends."""
    watchdog = ConsumerWatchdog(consumer)

    def run() -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            with survived("progress_thread"):
                watchdog.check()

    threading.Thread(target=bound(run), name="dspyq-progress", daemon=True).start()
    return watchdog


def _cut(consumer: Any) -> None:
    """Shut the consumer's connections down; Celery then restarts it, as after any lost connection."""
    for channel in list(consumer.connection.transport.channels if consumer.connection else ()):
        connection = getattr(channel.client, "connection", None)
        stream = connection and connection._sock  # noqa: SLF001 - disconnect() would close it under the reader's feet
        if stream is not None:
            with suppress(OSError):  # it is lost already
                stream.shutdown(socket.SHUT_RDWR)
