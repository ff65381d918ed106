"""Outbox of writes about calls: sent to Redis at once, or when it answers again."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import redis

from dspyq.core.events import Event
from dspyq.store.scripts import Step, at_their_servers, run_together

logger = logging.getLogger("dspyq.guards")


class Outbox:
    """Steps that must reach Redis eventually: a provider has been paid or money is held, even if Redis is down now.

    Any thread may call ``send``; only one thread calls ``catch_up``.

    Args:
        client: The Redis of plain commands; scripts run at their own.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._late: deque[tuple[redis.Redis, list[Step[Any]]]] = deque()

    @property
    def late_count(self) -> int:
        """Number of calls with unsent steps, at each server."""
        return len(self._late)

    def send(self, steps: list[Step[Any]]) -> list[Any]:
        """Run steps now, in one round trip to each server; queue those whose server does not answer.

        Returns:
            The results of the first step's server; an empty list if it does not answer.
        """
        results: list[list[Any]] = []
        for client, own in at_their_servers(steps, self._client):
            try:
                results.append(run_together(client, own))
            except redis.RedisError as error:
                logger.warning(Event("call_not_settled_yet", error=f"{type(error).__name__}: {error}"))
                self._late.append((client, own))
                results.append([])
        return results[0] if results else []

    def send_later(self, steps: list[Step[Any]]) -> None:
        """Queue steps until Redis answers again, without a try now: the caller has already waited for a timeout."""
        self._late.extend(at_their_servers(steps, self._client))

    def catch_up(self) -> None:
        """Run the queued steps.

        Raises:
            redis.RedisError: If a server still does not answer, or refuses some; nothing is lost then.
        """
        failure: redis.RedisError | None = None
        away: set[int] = set()
        for _ in range(len(self._late)):
            client, steps = self._late[0]
            if id(client) in away:
                self._late.rotate(-1)
                continue
            try:
                run_together(client, steps)
            except redis.RedisError as error:  # others must not wait for this one
                failure = error
                if not isinstance(error, redis.ResponseError):
                    away.add(id(client))
                self._late.rotate(-1)
            else:
                self._late.popleft()
        if failure is not None:
            raise failure
