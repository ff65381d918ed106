"""Queues this process takes nothing from for now. The state is wanted, not done: a new connection finds it as it is."""

from __future__ import annotations

import functools
import os
import threading


class Pauses:
    """The paused queues of a process. Any thread may change them; the consumer follows within a second.

    Attributes:
        changes: Raised by each change, so that a consumer sees one without comparing.
    """

    def __init__(self) -> None:
        self.changes = 0
        self._queues: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    @property
    def queues(self) -> frozenset[str]:
        """The names of the paused queues."""
        return self._queues

    def pause(self, queue: str) -> None:
        """Take nothing more from a queue; what was taken runs on, jobs of other queues flow on."""
        with self._lock:
            self._queues |= {queue}
            self.changes += 1

    def resume(self, queue: str) -> None:
        """Take from a queue again."""
        with self._lock:
            self._queues -= {queue}
            self.changes += 1


@functools.cache
def process_pauses() -> Pauses:
    """Return this process's pauses."""
    return Pauses()


os.register_at_fork(after_in_child=process_pauses.cache_clear)
