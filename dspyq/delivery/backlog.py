"""The backlog as it is: every unfinished job of each queue, wherever it stands, and how long the oldest has waited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from dspyq.store.scripts import Step, load_script

#: Jobs whose queue the script looks up one by one, among the delayed and among the leased; Redis waits for that.
_LOOKED_AT = 500
_MILLISECONDS_PER_SECOND = 1000


class QueueBacklog(NamedTuple):
    """The unfinished jobs of one queue.

    Attributes:
        queue: Its name; ``other`` for all that were not asked for, together.
        waiting: Those that wait for their turn, by priority; only priorities that have any.
        delayed: Those that are not due yet, or are parked for a while.
        leased: Those that workers hold, running or about to.
        oldest_age_seconds: How long ago the oldest of the waiting ones was published; 0 where none waits.
    """

    queue: str
    waiting: dict[int, int]
    delayed: int
    leased: int
    oldest_age_seconds: float

    @property
    def waiting_count(self) -> int:
        """How many wait, of all priorities."""
        return sum(self.waiting.values())


OTHER_QUEUES = "other"


class Backlog:
    """Reads the backlog.

    Args:
        client: The Redis of jobs.
        queues: The queues that are told apart.
    """

    def __init__(self, client: redis.Redis, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._script = load_script(client, "dspyq.delivery", "backlog", library="jobs")

    def read(self) -> Step[list[QueueBacklog]]:
        """Return a step that reads it."""
        return self._script.step(self._read, args=(_LOOKED_AT, *self._queues))

    def _read(self, reply: list[list[int]]) -> list[QueueBacklog]:
        return [_backlog(queue, *found) for queue, found in zip((*self._queues, OTHER_QUEUES), reply, strict=True)]


def _backlog(queue: str, delayed: int, leased: int, age_milliseconds: int, *waiting: Any) -> QueueBacklog:
    by_priority = dict(zip(waiting[::2], waiting[1::2], strict=True))
    return QueueBacklog(queue, by_priority, delayed, leased, age_milliseconds / _MILLISECONDS_PER_SECOND)
