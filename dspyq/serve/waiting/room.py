"""Admission: how many requests may wait in this process, and how deep a queue may be."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from dspyq.api_keys.usage import process_key_usage
from dspyq.client.off_loop import off_loop
from dspyq.core.tolerated import tolerate
from dspyq.serve.callers import Caller
from dspyq.serve.problems import OVERLOADED, TOO_MANY_REQUESTS, Declined
from dspyq.store.clients import jobs_client
from dspyq.store.keys import key
from dspyq.store.spines import Spines

#: Callers that come again at different times do not come all at once.
_EARLIEST_SECONDS, _LATEST_SECONDS = 1.0, 10.0


class WaitingRoom:
    """The requests that wait for an answer, and the depths of the queues they were asked in.

    Args:
        most_waiting: The most that may wait.
        max_queued: The depth of a queue from which on no new question is taken.

    Attributes:
        waiting: Number of requests that wait now.
        waiting_by_key: Those of each key that has a limit of its own, by its id.
        refused: Number of refused requests, by reason.
    """

    def __init__(self, most_waiting: int, max_queued: int) -> None:
        self._most_waiting = most_waiting
        self._max_queued = max_queued
        self._asked: set[str] = set()
        self._depths: dict[str, int] = {}
        self.waiting = 0
        self.waiting_by_key: Counter[str] = Counter()
        self.refused = {"most_waiting": 0, "max_queued": 0, "key": 0}

    @contextmanager
    def admit(self, queue: str, caller: Caller) -> Iterator[None]:
        """Let a request wait within a block.

        Args:
            queue: The queue of its question.
            caller: Its caller.

        Raises:
            Declined: With 503, if too many wait, or the queue is too deep; with 429, if too many of its key wait.
        """
        limit = caller.key.grant.most_waiting if caller.key else None
        if limit is not None and self.waiting_by_key[caller.key_id] >= limit:
            self.refused["key"] += 1
            process_key_usage().note(caller.key_id, "refused")
            raise Declined(
                TOO_MANY_REQUESTS, f"{limit} requests of the key wait, its most", retry_after_seconds=_EARLIEST_SECONDS
            )
        if self.waiting >= self._most_waiting:
            self.refused["most_waiting"] += 1
            raise _overloaded("too many requests wait here: serve.most_waiting")
        if self._depths.get(queue, 0) >= self._max_queued:
            self.refused["max_queued"] += 1
            self._asked.add(queue)
            raise _overloaded("too many questions are queued: serve.max_queued")
        self._asked.add(queue)
        self.waiting += 1
        if limit is not None:
            self.waiting_by_key[caller.key_id] += 1
        try:
            yield
        finally:
            self.waiting -= 1
            if limit is not None:
                self.waiting_by_key[caller.key_id] -= 1

    def take_asked(self) -> frozenset[str]:
        """Return the queues that were asked for since the last call."""
        asked = frozenset(self._asked)
        self._asked.clear()
        return asked

    def learn(self, depths: dict[str, int]) -> None:
        """Take the depths of the queues that were asked for; those of others are forgotten."""
        self._depths = depths


def read_depths(queues: frozenset[str]) -> dict[str, int]:
    """Return the number of jobs that wait for their turn in each queue of the active spine, in one round trip.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    names = sorted(queues)
    pipeline = jobs_client().pipeline(transaction=False)
    for name in names:
        pipeline.zcard(key("queue:") + name)
    return dict(zip(names, pipeline.execute(), strict=True))


class DepthsOfSpines:
    """Reads the depths of queues over several spines; one that does not answer holds up no other, and counts as empty.

    An event loop alone calls it.

    Args:
        spines: The spines.
    """

    def __init__(self, spines: Spines) -> None:
        self._spines = spines
        self._reading: dict[int, asyncio.Future[dict[str, int]]] = {}

    async def read(self, queues: frozenset[str], seconds: float) -> dict[str, int]:
        """Return the depths of queues, each added up over the spines that answer in time.

        Args:
            queues: The queues.
            seconds: The longest wait.
        """
        for spine in self._spines.all:
            if queues and spine.number not in self._reading:
                read = spine.runtime.bind(read_depths)
                self._reading[spine.number] = asyncio.ensure_future(off_loop(read, queues))
        if self._reading:
            await asyncio.wait(self._reading.values(), timeout=seconds)
        depths: Counter[str] = Counter()
        for number, reading in list(self._reading.items()):
            if reading.done():
                del self._reading[number]
                if (error := reading.exception()) is None:
                    depths.update(reading.result())
                else:
                    tolerate("door_thread", error)
        return depths


def _overloaded(detail: str) -> Declined:
    seconds = random.uniform(_EARLIEST_SECONDS, _LATEST_SECONDS)  # noqa: S311 - no secret
    return Declined(OVERLOADED, detail, retry_after_seconds=round(seconds, 1))
