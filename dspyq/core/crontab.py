"""Times of a crontab line. cronsim parses the line; daylight saving time is handled here.

cronsim follows Debian's cron, where a line that names its hour behaves unlike one with a star. Batches name
their files after local time, so every local time is one occurrence, whatever the line looks like.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from dspyq.core.wall_clock import find_timezone, seconds_at, shown_at

_FIELDS = 5
#: What some crons know, which lines mean the same: batches name their files by the fields.
_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
#: The largest change of a clock: islands have moved across the date line by a whole day.
_LONGEST_CHANGE = timedelta(days=1, minutes=1)
_ANY_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 - what the wall shows


class Occurrence(NamedTuple):
    """A time at which a line fires.

    Attributes:
        due_at: In seconds since 1970.
        shown: The local time that the line states, even if daylight saving time skips it.
    """

    due_at: int
    shown: datetime

    @property
    def label(self) -> str:
        """Its name, which sorts by time: ``2026-11-24T22:00``."""
        return self.shown.isoformat(timespec="minutes")

    @classmethod
    def of_label(cls, label: str, zone: ZoneInfo) -> Self:
        """Return the occurrence of a name."""
        shown = datetime.fromisoformat(label)
        return cls(seconds_at(shown, zone), shown)


@dataclass(frozen=True)
class Crontab:
    """The times of a five-field line in a timezone.

    A time that daylight saving time skips fires in the next minute that exists; several in one minute count as one.
    A time that is repeated fires once, the first time.

    Attributes:
        line: As it was written.
        zone: Its time zone.
    """

    line: str
    zone: ZoneInfo

    @classmethod
    def parse(cls, line: str, timezone: str) -> Self:
        """Read a line.

        Args:
            line: Minute, hour, day of the month, month, day of the week, as in ``0 22 * * 1-5``.
            timezone: A name in the IANA database.

        Raises:
            ValueError: If it is not that, or never fires.
        """
        if (name := line.strip().lower()) in _NICKNAMES:
            raise ValueError(f'{line!r} is no crontab line: write "{_NICKNAMES[name]}"')
        fault = "" if len(line.split()) == _FIELDS else "it has no five fields"
        try:
            if not fault and next(CronSim(line, _ANY_TIME), None) is None:
                fault = "it never fires"
        except CronSimError as error:
            fault = str(error).lower()
        if fault:
            raise ValueError(
                f"{line!r} is no crontab line: {fault}; write minute, hour, day of the month, month and day of the "
                'week, as in "0 22 * * 1-5"'
            )
        return cls(line, find_timezone(timezone))

    @property
    def fires_several_times_a_day(self) -> bool:
        """Return True if a day can have more than one occurrence."""
        times = CronSim(self.line, _ANY_TIME)
        return len(times.hours) * len(times.minutes) > 1

    def next_after(self, seconds: float) -> Occurrence:
        """Return the first occurrence after a second since 1970."""
        start = shown_at(seconds, self.zone) - _LONGEST_CHANGE
        return next(occurrence for occurrence in self._occurrences(start) if occurrence.due_at > seconds)

    def latest(self, count: int, *, after: float, until: float) -> list[Occurrence]:
        """Return the last occurrences of a stretch of time, the oldest first.

        Args:
            count: The most of them.
            after: Its start, exclusive, in seconds since 1970.
            until: Its end, inclusive.
        """
        start = shown_at(until, self.zone) + _LONGEST_CHANGE
        backwards = itertools.dropwhile(lambda each: each.due_at > until, self._occurrences(start, is_reverse=True))
        within = itertools.takewhile(lambda each: each.due_at > after, backwards)
        return list(itertools.islice(within, count))[::-1]

    def _occurrences(self, start: datetime, *, is_reverse: bool = False) -> Iterator[Occurrence]:
        """Yield the occurrences from a local time onwards; the last local time stands for those of one minute."""
        each_time = (
            Occurrence(seconds_at(shown, self.zone), shown) for shown in CronSim(self.line, start, reverse=is_reverse)
        )
        for _, same_minute in itertools.groupby(each_time, key=lambda each: each.due_at):
            yield max(same_minute)
