"""The hours of a day in which a batch may run, as ``22:00-06:00``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from dspyq.core.wall_clock import find_timezone, seconds_at, shown_at

_SPAN = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")
_DAY = timedelta(days=1)
#: A window that has not closed after so many days never does.
_DAYS_AHEAD = 3


@dataclass(frozen=True)
class Window:
    """One or more spans of the day, open from the start of each up to its end, across midnight where that is earlier.

    Spans follow local time. A start or end that daylight saving time skips is the next minute that exists. Of a minute
    that is repeated, a start is the first and an end the last: a window is never shorter than stated, and the
    night in which the clock is set back has an hour more.

    Attributes:
        text: As it was written.
        zone: Its time zone.
        spans: The start and end of each.
    """

    text: str
    zone: ZoneInfo
    spans: tuple[tuple[time, time], ...]

    @classmethod
    def parse(cls, text: str, timezone: str) -> Self:
        """Read spans, separated by commas.

        Args:
            text: As in ``22:00-06:00`` or ``22:00-06:00, 12:00-13:00``.
            timezone: A name in the IANA database.

        Raises:
            ValueError: If it is not of that form.
        """
        return cls(text, find_timezone(timezone), tuple(map(_parse_span, text.split(","))))

    def is_open(self, now: float) -> bool:
        """Return True if it is open at a second since 1970."""
        return any(opens_at <= now < closes_at for opens_at, closes_at in self._openings(now))

    def seconds_until_open(self, now: float) -> float:
        """Return the seconds until it opens; 0 while it is open."""
        if self.is_open(now):
            return 0.0
        return min(opens_at for opens_at, _ in self._openings(now) if opens_at > now) - now

    def seconds_until_close(self, now: float) -> float:
        """Return the seconds until it closes; 0 while it is closed, infinity if its spans leave no gap."""
        end = now
        for opens_at, closes_at in sorted(self._openings(now)):
            if opens_at <= end < closes_at:
                end = closes_at
        return math.inf if end > now + (_DAYS_AHEAD - 1) * _DAY.total_seconds() else end - now

    def _openings(self, now: float) -> Iterator[tuple[int, int]]:
        """Yield start and end of its openings around a second, without spans that daylight saving time skips."""
        midnight = datetime.combine(shown_at(now, self.zone), time())
        for days in range(-2, _DAYS_AHEAD + 1):  # two back: islands have skipped a whole day
            for start, end in self.spans:
                opens = datetime.combine(midnight + days * _DAY, start)
                closes = datetime.combine(opens if end > start else opens + _DAY, end)
                opens_at, closes_at = seconds_at(opens, self.zone), seconds_at(closes, self.zone, is_last=True)
                if opens_at < closes_at:
                    yield opens_at, closes_at

    def __str__(self) -> str:
        """Return the spans with their time zone."""
        return f"{self.text} {self.zone.key}"


def _parse_span(text: str) -> tuple[time, time]:
    found = _SPAN.fullmatch(text.strip())
    if not found:
        raise ValueError(f"{text.strip()!r} is no span of the day: write it as in 22:00-06:00")
    hour, minute, end_hour, end_minute = map(int, found.groups())
    start, end = time(hour, minute), time(end_hour, end_minute)
    if start == end:
        raise ValueError(f"{text.strip()!r} starts and ends at once: leave it out to run at any time")
    return start, end
