"""Paused queues of this process. This is the desired state, which each new connection applies."""

from __future__ import annotations

from dspyq.core.runtime import per_runtime


class Pauses:
    """The paused queues of a process. Any thread may change them; the consumer follows within a second."""

    def __init__(self) -> None:
        self._queues: set[str] = set()

    @property
    def queues(self) -> frozenset[str]:
        """The names of the queues that are paused now."""
        return frozenset(self._queues)

    def pause(self, queue: str) -> None:
        """Take nothing more from a queue; jobs already taken and other queues are unaffected."""
        self._queues.add(queue)

    def resume(self, queue: str) -> None:
        """Take from a queue again."""
        self._queues.discard(queue)


@per_runtime
def process_pauses() -> Pauses:
    """Return this process's pauses."""
    return Pauses()
