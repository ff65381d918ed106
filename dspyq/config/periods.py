"""The days and months that money is counted by, beginning at midnight of ``budget.timezone``."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime


class Period(NamedTuple):
    """A day or a month.

    Attributes:
        label: ``2026-11-24`` or ``2026-11``.
        starts_at: Its first second, since 1970.
        ends_at: The second it is over.
    """

    label: str
    starts_at: int
    ends_at: int


class Periods(NamedTuple):
    """Candidates for the current day and month; Redis picks by its own clock.

    Attributes:
        days: Today, yesterday and tomorrow.
        months: This month, the one before and the next.
    """

    days: tuple[Period, ...]
    months: tuple[Period, ...]

    @property
    def today(self) -> str:
        """Label of the current day."""
        return self.days[0].label


class Calendar:
    """The days and months of a timezone, summer time included; computed once a day."""

    def __init__(self, timezone: str, clock: Callable[[], float] = time.time) -> None:
        """Take the timezone and the clock.

        Args:
            timezone: Its name in the IANA database.
            clock: Seconds since 1970.
        """
        self._timezone = timezone
        self._clock = clock
        self._periods: Periods | None = None

    def now(self) -> Periods:
        """Return the periods around the present."""
        seconds = self._clock()
        periods = self._periods
        if periods is None or not periods.days[0].starts_at <= seconds < periods.days[0].ends_at:
            self._periods = periods = self.at(seconds)
        return periods

    def at(self, seconds: float) -> Periods:
        """Return the periods around a second since 1970."""
        zone: tzinfo = UTC
        if self._timezone != "UTC":
            from zoneinfo import ZoneInfo  # noqa: PLC0415 - costs an import what only a configured zone needs

            zone = ZoneInfo(self._timezone)

        def starts_at(day: date) -> int:
            return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())

        def day(number: int) -> Period:
            first = today + timedelta(days=number)
            return Period(first.isoformat(), starts_at(first), starts_at(first + timedelta(days=1)))

        def month(number: int) -> Period:
            first, following = _first_of_month(today, number), _first_of_month(today, number + 1)
            return Period(first.isoformat()[:7], starts_at(first), starts_at(following))

        today = datetime.fromtimestamp(seconds, zone).date()
        around = (0, -1, 1)
        return Periods(tuple(map(day, around)), tuple(map(month, around)))


def _first_of_month(day: date, number: int) -> date:
    """Return the first day of the month ``number`` months after that of ``day``."""
    months = day.year * 12 + day.month - 1 + number
    return day.replace(year=months // 12, month=months % 12 + 1, day=1)


@per_runtime(is_kept=True)
def process_calendar() -> Calendar:
    """Return this process's calendar, of ``budget.timezone``."""
    return Calendar(get_settings().budget.timezone)
