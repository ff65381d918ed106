"""Shipments of batches with little money: holds last for hours, so that money comes free in small parts.

What waits for money goes on as soon as some comes free, and few lines follow those of their batch that are out. What is
left at the end, which would make ever smaller shipments, leaves the lane: it is the batch's rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import redis

from dspyq.guards.batch_lanes import BatchLanes
from dspyq.lane.journal import LaneJournal, OpenLines
from dspyq.lane.shipment import Shipment
from dspyq.lane.unpaid import UnpaidRows
from dspyq.store.clients import jobs_client
from dspyq.store.spines import on_each_spine, process_spines

#: A shipment of batches that are short of money has at least this part of what waits, lines at the provider included,
#: while others of these batches are out.
_LEAST_PART = 0.05
#: A rest is one only if nothing has come for so many times ``batch_linger_seconds``.
_LINGERS_OF_REST = 3
#: Money comes free elsewhere too, as of live calls or with a new day: so many rows are woken each so many seconds.
_PROBES, _PROBE_SECONDS = 10, 3.0
#: All workers know of a rest so much later, as they keep the lanes of batches for a moment.
_REST_KNOWN_SECONDS = 3.0
#: Between two looks for shipments on other spines.
_LOOK_ELSEWHERE_SECONDS = 5.0


class Scarcity:
    """The rows of one lane that wait for money, and the shipments that are put off for more.

    Args:
        journal: The lane's journal.
        unpaid: Its rows that wait for money.
        lanes: The lanes of batches.
    """

    def __init__(self, journal: LaneJournal, unpaid: UnpaidRows, lanes: BatchLanes) -> None:
        self._journal = journal
        self._unpaid = unpaid
        self._lanes = lanes
        self._to_wake = 0
        self._probe_at = 0.0
        self._landed_at = float("-inf")
        self._rests: dict[str, float] = {}
        self._recalled: set[str] = set()
        self._look_elsewhere_at = 0.0
        self._elsewhere: set[str] | None = None

    def landed(self, lines: int, now: float) -> None:
        """Note that lines have landed: their money pays for others, which are yet to come."""
        self._to_wake += lines
        self._landed_at = now

    def wake(self, opened: OpenLines) -> None:
        """Wake rows that wait for money, as far as there may be some.

        Raises:
            LaneLost: If another worker runs the lane.
        """
        if not opened.unpaid_rows:
            self._to_wake = 0
            return
        if opened.now >= self._probe_at:
            self._probe_at = opened.now + _PROBE_SECONDS
            self._to_wake = max(self._to_wake, _PROBES)
        if self._to_wake:
            self._to_wake = max(0, self._to_wake - self._unpaid.wake(self._to_wake))

    def quiet_seconds(self, opened: OpenLines) -> tuple[float, float]:
        """Return the seconds since the first and the latest open line came, or since lines have landed, if less."""
        since = opened.now - self._landed_at
        return min(opened.oldest_seconds, since), min(opened.latest_seconds, since)

    def puts_off(self, opened: OpenLines, shipments: Sequence[Shipment], linger_seconds: float) -> list[str] | None:
        """Return None if the open lines may be shipped. Else they wait, but for the returned ones: they leave the lane.

        Args:
            opened: The open lines.
            shipments: The shipments.
            linger_seconds: How long a shipment waits for company.
        """
        if opened.number >= _LEAST_PART * (opened.all_lines + opened.unpaid_rows):
            return None
        lines = self._journal.first_open()
        batches = {line.batch for line in lines.values()}
        short = batches & self._unpaid.batches()  # of money; what is in the lane of the others is paid for
        out = _batches_of(shipments)
        if batches <= short & out:
            return []
        if batches & out or not short:
            return None
        if self.quiet_seconds(opened)[1] < _LINGERS_OF_REST * linger_seconds:
            return []
        if self._are_out_elsewhere(batches, opened.now):
            return []
        leaving = self._begin_rest(short, opened.now)
        return None if leaving is None else [custom_id for custom_id, line in lines.items() if line.batch in leaving]

    def _are_out_elsewhere(self, batches: set[str], now: float) -> bool:
        """Return True if any of these batches has a shipment out on another spine, or may have one."""
        if now >= self._look_elsewhere_at:
            self._look_elsewhere_at = now + _LOOK_ELSEWHERE_SECONDS
            self._elsewhere = None
            with suppress(redis.RedisError):  # a spine that is away holds up the rest, and no shipment of this lane
                self._elsewhere = _batches_out(self._journal.model)
        return self._elsewhere is None or bool(batches & self._elsewhere)

    def _begin_rest(self, batches: set[str], now: float) -> set[str] | None:
        """Have what these batches have no money for leave the lane; return those whose open lines leave it now.

        They leave it once. What comes back is of rows that have begun, and shipped whatever its number.
        """
        leaving = {batch for batch in batches - self._recalled if self._lanes.begin_rest(batch).is_of_provider}
        if not leaving:
            return None
        for batch in leaving:
            self._rests.setdefault(batch, now)
        if any(now - self._rests[batch] < _REST_KNOWN_SECONDS for batch in leaving):
            return set()
        self._recalled |= leaving
        return leaving


def _batches_of(shipments: Sequence[Shipment]) -> set[str]:
    return {batch for one in shipments if one.state != "closing" for batch in one.batches}


def _batches_out(model: str) -> set[str]:
    """Return the batches with shipments out in a model's lanes of all spines; none where one Redis holds all."""
    if process_spines() is None:
        return set()
    found = on_each_spine(lambda: _batches_of(LaneJournal(jobs_client(), model).shipments()))
    return set[str]().union(*found)
