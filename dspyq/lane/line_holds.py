"""Holds of the lines of one lane: renewed as long as their provider takes, and certain before they are sent.

A hold is written before its line. But a Redis that restarts in between may lose the hold, and the script that is
repeated then writes the line alone: it would be paid, and charged to no one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import redis

from dspyq.guards.budget import Budget
from dspyq.lane.disk import wait_for_disk_of_money
from dspyq.lane.journal import LaneJournal
from dspyq.lane.landing import Landing
from dspyq.lane.line import LaneLine, attempt_id_of
from dspyq.lane.step_log import log_step
from dspyq.store.scripts import run_each, run_together

#: Each time, Redis must have restarted again.
_MOST_PASSES = 3


class LineHolds:
    """Holds of the lines of one lane.

    Args:
        journal: The lane's journal.
        budget: The budget, in which its lines are held.
        landing: Drops lines.
    """

    def __init__(self, journal: LaneJournal, budget: Budget, landing: Landing) -> None:
        self._journal = journal
        self._budget = budget
        self._landing = landing

    def renew(self, lease_seconds: float) -> None:
        """Renew the leases of all that is held for lines, open or shipped, however long their provider takes."""
        for lines in self._journal.every_line():
            self._renew(lines, lease_seconds)

    def secure(self, name: str, lease_seconds: float) -> int:
        """Have the money of a shipment's lines held for certain; return how many lines it has then.

        Its journal has just waited for the disk; where that is the Redis of money too, its holds are there.

        What finds no money any more leaves the lane: its program makes the call again, and waits for money.

        Raises:
            LaneLost: If another worker runs the lane.
            redis.RedisError: If Redis does not answer, or loses what it holds again and again.
        """
        is_on_disk = self._budget.client is self._journal.client
        for _ in range(_MOST_PASSES):
            secured, unheld = self._look(name, lease_seconds, is_on_disk=is_on_disk)
            if not unheld:
                return secured
            self._hold_again(name, unheld, lease_seconds)
            is_on_disk = False
        raise redis.ConnectionError("Redis has lost the holds of lines again and again")

    def _look(self, name: str, lease_seconds: float, *, is_on_disk: bool) -> tuple[int, dict[str, LaneLine]]:
        """Return how many lines a shipment has, and those that hold no money on the disk of Redis."""
        pages = self._pages(name)
        page = next(pages, {})
        if page and not is_on_disk:
            wait_for_disk_of_money(self._budget.client, next(iter(page.values())).batch)
        number = 0
        unheld: dict[str, LaneLine] = {}
        while page:
            number += len(page)
            if self._renew(page, lease_seconds) < len(page):
                unheld |= {each: line for each, line in page.items() if not self._renew({each: line}, lease_seconds)}
            page = next(pages, {})
        return number, unheld

    def _hold_again(self, name: str, lines: dict[str, LaneLine], lease_seconds: float) -> None:
        model = self._journal.model
        steps = [
            self._budget.hold(line.billed(model, each), line.bound, lease_seconds=lease_seconds)
            for each, line in lines.items()
        ]
        verdicts = run_each(self._budget.client, steps)
        refused = [
            each
            for each, verdict in zip(lines, verdicts, strict=True)
            if isinstance(verdict, redis.RedisError) or not verdict.is_held
        ]
        self._landing.drop(refused)
        log_step("lane_holds_again", model, name, logging.WARNING, lines=len(lines), dropped=len(refused))

    def _renew(self, lines: dict[str, LaneLine], lease_seconds: float) -> int:
        """Renew the holds of some lines; return how many there are."""
        ids = [f"{line.task}:{attempt_id_of(line.variant, custom_id)}" for custom_id, line in lines.items()]
        return int(run_together(self._budget.client, [self._budget.renew(ids, lease_seconds)])[0])

    def _pages(self, name: str) -> Iterator[dict[str, LaneLine]]:
        """Yield the lines of a shipment that have not landed, some hundred at a time."""
        for ids in self._journal.all_ids_of(name):
            if lines := self._journal.lines(ids):
                yield lines
