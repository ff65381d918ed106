"""The backlog: the unfinished jobs of each queue in any state, and the age of the oldest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from dspyq.store.scripts import Step, load_script

#: Most delayed and most leased jobs whose queue the script looks up one by one, which blocks Redis.
_LOOKED_AT = 500
_MILLISECONDS_PER_SECOND = 1000
#: Delayed and leased jobs, and the age of the oldest, of a queue without any.
_NO_JOBS = (0, 0, 0)


class QueueBacklog(NamedTuple):
    """The unfinished jobs of one queue.

    Attributes:
        queue: Its name; ``other`` for all unlisted queues together.
        waiting: Waiting jobs by priority; only priorities that have any.
        delayed: Jobs that are not due yet, or are parked.
        leased: Jobs that workers hold, running or prefetched.
        oldest_age_seconds: Age of the oldest waiting job; 0 if none waits.
    """

    queue: str
    waiting: dict[int, int]
    delayed: int
    leased: int
    oldest_age_seconds: float

    @property
    def waiting_count(self) -> int:
        """The number of waiting jobs, of all priorities."""
        return sum(self.waiting.values())

    @property
    def unfinished(self) -> int:
        """The number of jobs in all places."""
        return self.waiting_count + self.delayed + self.leased


OTHER_QUEUES = "other"


def add_up_backlogs(parts: Sequence[Sequence[QueueBacklog]]) -> list[QueueBacklog]:
    """Return the backlogs of queues, each added up over the spines.

    Args:
        parts: Of each spine, the backlogs of the same queues, in one order.
    """
    return [_added_up(of_queue) for of_queue in zip(*parts, strict=True)]


def _added_up(parts: Sequence[QueueBacklog]) -> QueueBacklog:
    waiting: Counter[int] = Counter()
    for part in parts:
        waiting.update(part.waiting)
    return QueueBacklog(
        parts[0].queue,
        dict(waiting),
        sum(part.delayed for part in parts),
        sum(part.leased for part in parts),
        max(part.oldest_age_seconds for part in parts),
    )


class Backlog:
    """Reader of the backlog.

    Args:
        client: The Redis of jobs.
        queues: The queues that are listed separately.
    """

    def __init__(self, client: redis.Redis, queues: Sequence[str]) -> None:
        self._queues = tuple(queues)
        self._script = load_script(client, "dspyq.delivery", "backlog")

    def read(self) -> Step[list[QueueBacklog]]:
        """Return a step that reads it."""
        return self._script.step(self._read, limit=_LOOKED_AT, names=self._queues)

    def _read(self, reply: list[list[int]]) -> list[QueueBacklog]:
        found = {position: counts for position, *counts in reply}
        queues = enumerate((*self._queues, OTHER_QUEUES), start=1)
        return [_backlog(queue, *found.get(position, _NO_JOBS)) for position, queue in queues]


def _backlog(queue: str, delayed: int, leased: int, age_milliseconds: int, *waiting: Any) -> QueueBacklog:
    by_priority = dict(zip(waiting[::2], waiting[1::2], strict=True))
    return QueueBacklog(queue, by_priority, delayed, leased, age_milliseconds / _MILLISECONDS_PER_SECOND)
