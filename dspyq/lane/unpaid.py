"""Rows of a lane that wait for money: other calls hold it, or their batch has none for them yet."""

from __future__ import annotations

from typing import cast

import redis

from dspyq.guards.call_records import JobRun
from dspyq.lane.journal import LaneLost
from dspyq.store.keys import lane_key
from dspyq.store.scripts import load_script

_ROWS_AT_ONCE = 500


class UnpaidRows:
    """The rows of one model's lane that wait for money.

    Their jobs are delayed ones, which come back by themselves after some minutes; the worker that runs the lane wakes
    them as soon as money comes free. Rows that have begun come first.

    Args:
        client: The Redis of jobs.
        model: The model's table.
        token: Names this worker as the one that runs the lane.
    """

    def __init__(self, client: redis.Redis, model: str, token: str = "") -> None:
        self._client = client
        self._model = model
        self._token = token
        self._add = load_script(client, "dspyq.lane", "await_money")
        self._wake = load_script(client, "dspyq.lane", "wake_unpaid")

    def add(self, job: JobRun, replies: int) -> None:
        """Note that a row waits, of which so many calls are paid and answered."""
        self._add(model=self._model, task=job.task_id, batch=job.batch, replies=replies)

    def wake(self, most: int) -> int:
        """Wake the first of them; return their number.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        woken = int(self._wake(model=self._model, token=self._token, most=most, limit=_ROWS_AT_ONCE))
        if woken < 0:
            raise LaneLost
        return woken

    def batches(self) -> frozenset[str]:
        """Return the batches of the first hundreds of them."""
        members = cast("list[bytes]", self._client.zrange(lane_key(self._model, "unpaid"), 0, _ROWS_AT_ONCE - 1))
        return frozenset(member.decode().partition(":")[0] for member in members)
