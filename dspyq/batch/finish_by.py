"""The hour by which every row of a batch is to be there, and when it must leave its lane for that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Literal

from dspyq.batch.journal import Journal
from dspyq.core.wall_clock import find_timezone, seconds_at

#: ``lane``: calls go to the lane. ``closing``: its shipments are cancelled, and what lands unanswered goes on live.
#: ``flex``: the rows that still wait are woken and go on at the flex tier. ``live``: all is made at the standard tier.
LaneStage = Literal["lane", "closing", "flex", "live"]

#: Live calls take longer at night's end than they did on average.
_SLOWER = 1.5
#: A part of the batch's whole time stays free for the unexpected, within these bounds.
_MARGIN_PART, _LEAST_MARGIN_SECONDS, _MOST_MARGIN_SECONDS = 0.05, 2.0, 300.0
#: The flex tier is slow; it gets so many times what live calls need.
_FLEX_SLOWER = 3.0


@dataclass(frozen=True)
class Timetable:
    """Times at which a batch leaves its lane, in seconds since 1970.

    Attributes:
        finish_at: When every row is to be there.
        live_at: When what is left goes live.
        tail_at: When rows that wait are woken: for the flex tier, or live where there is none.
        cancel_at: When its shipments are cancelled, so that as little as possible is paid twice.
    """

    finish_at: float
    live_at: float
    tail_at: float
    cancel_at: float

    def stage(self, now: float) -> LaneStage:
        """Return the stage at a time."""
        if now >= self.live_at:
            return "live"
        if now >= self.tail_at:
            return "flex"
        return "closing" if now >= self.cancel_at else "lane"


def timetable(began_at: float, finish_at: float, live_seconds: float, *, has_flex: bool) -> Timetable:
    """Return the times of a batch.

    Args:
        began_at: When it began.
        finish_at: When every row is to be there.
        live_seconds: What the rows that are left would take live, by the history.
        has_flex: Whether the flex tier is cheaper.
    """
    margin = min(max(_MARGIN_PART * (finish_at - began_at), _LEAST_MARGIN_SECONDS), _MOST_MARGIN_SECONDS)
    live_at = finish_at - _SLOWER * live_seconds - margin
    tail_at = live_at - _FLEX_SLOWER * live_seconds - margin if has_flex else live_at
    return Timetable(finish_at, live_at, tail_at, tail_at - margin)


def next_time(hour: str, timezone: str, now: float) -> float:
    """Return the next time at which a clock in a time zone shows an hour, in seconds since 1970.

    Args:
        hour: As in ``07:00`` or ``07:00:30``.
        timezone: A name in the IANA database.
        now: Seconds since 1970.
    """
    zone = find_timezone(timezone)
    shown = time.fromisoformat(hour.zfill(5) if hour.count(":") == 1 else hour.zfill(8))
    today = datetime.fromtimestamp(now, zone).date()
    for days in range(3):
        found = seconds_at(datetime.combine(today + timedelta(days=days), shown), zone)
        if found > now:
            return float(found)
    raise ValueError(f"{hour} does not come in {timezone}")


def finish_at(journal: Journal, finish_by: tuple[str, str] | None, now: float) -> float | None:
    """Return the time by which a batch is to be done: the hour's first after its first run, kept in its journal."""
    if finish_by is None:
        return None
    stated = " ".join(finish_by)
    kept, _, at = (journal.meta("finish_at") or "").rpartition("=")
    if kept != stated:
        at = repr(next_time(*finish_by, now))
        journal.set_meta(finish_at=f"{stated}={at}")
    return float(at)
