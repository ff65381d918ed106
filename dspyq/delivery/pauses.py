"""Queues this process takes nothing from for now. The state is wanted, not done: a new connection finds it as it is."""

from __future__ import annotations

import functools
import os


class Pauses:
    """The paused queues of a process. Any thread may change them; the consumer follows within a second."""

    def __init__(self) -> None:
        self._queues: set[str] = set()

    @property
    def queues(self) -> frozenset[str]:
        """The names of the queues that are paused now."""
        return frozenset(self._queues)

    def pause(self, queue: str) -> None:
        """Take nothing more from a queue; what was taken runs on, jobs of other queues flow on."""
        self._queues.add(queue)

    def resume(self, queue: str) -> None:
        """Take from a queue again."""
        self._queues.discard(queue)


@functools.cache
def process_pauses() -> Pauses:
    """Return this process's pauses."""
    return Pauses()


os.register_at_fork(after_in_child=process_pauses.cache_clear)
