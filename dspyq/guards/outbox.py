"""Outbox of writes about calls: sent to Redis at once, or when it answers again."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import redis

from dspyq.core.events import Event
from dspyq.store.scripts import Step, run_together

logger = logging.getLogger("dspyq.guards")


class Outbox:
    """Steps that must reach Redis eventually: a provider has been paid or money is held, even if Redis is down now.

    Any thread may call ``send``; only one thread calls ``catch_up``.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._late: deque[list[Step[Any]]] = deque()

    @property
    def late_count(self) -> int:
        """Number of calls with unsent steps."""
        return len(self._late)

    def send(self, steps: list[Step[Any]]) -> list[Any]:
        """Run steps now and return their results; if Redis does not answer, queue them and return an empty list."""
        try:
            return run_together(self._client, steps)
        except redis.RedisError as error:
            logger.warning(Event("call_not_settled_yet", error=f"{type(error).__name__}: {error}"))
            self._late.append(steps)
            return []

    def send_later(self, steps: list[Step[Any]]) -> None:
        """Queue steps until Redis answers again, without a try now: the caller has already waited for a timeout."""
        self._late.append(steps)

    def catch_up(self) -> None:
        """Run the queued steps.

        Raises:
            redis.RedisError: If Redis still does not answer, or refuses some; nothing is lost then.
        """
        refused: redis.ResponseError | None = None
        for _ in range(len(self._late)):
            try:
                run_together(self._client, self._late[0])
            except redis.ResponseError as error:  # the others must not wait for this one
                refused = error
                self._late.rotate(-1)
            else:
                self._late.popleft()
        if refused is not None:
            raise refused
