"""What Redis is told of calls: at once, or when it answers again."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import redis

from dspyq.core.events import Event
from dspyq.store.scripts import Step, run_together

logger = logging.getLogger("dspyq.guards")


class Settlements:
    """Steps that must reach Redis in the end: a provider has been paid, or money is held, whatever Redis says now.

    Any thread may tell; one alone catches up.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._late: deque[list[Step[Any]]] = deque()

    @property
    def late_count(self) -> int:
        """How many calls Redis could not be told of yet."""
        return len(self._late)

    def tell(self, steps: list[Step[Any]]) -> list[Any]:
        """Run steps now, or else when Redis answers again; return what they return, nothing where that is later."""
        try:
            return run_together(self._client, steps)
        except redis.RedisError as error:
            logger.warning(Event("call_not_settled_yet", error=f"{type(error).__name__}: {error}"))
            self._late.append(steps)
            return []

    def tell_later(self, steps: list[Step[Any]]) -> None:
        """Run steps when Redis answers again, which it does not now: nobody is to wait for that twice."""
        self._late.append(steps)

    def catch_up(self) -> None:
        """Run what is late.

        Raises:
            redis.RedisError: If Redis still does not answer, or refuses some; nothing is lost by that.
        """
        refused: redis.ResponseError | None = None
        for _ in range(len(self._late)):
            try:
                run_together(self._client, self._late[0])
            except redis.ResponseError as error:  # the others are not to wait for that one
                refused = error
                self._late.rotate(-1)
            else:
                self._late.popleft()
        if refused is not None:
            raise refused
