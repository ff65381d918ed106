"""A clock on the wall that is looked at each minute: slow, and with no idea of what summer time is."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana"]
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def seconds(text: str, zone: str = "UTC") -> float:
    """Return the second since 1970 at which a wall shows a time; the first where it does so twice."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


class Wall:
    """Two weeks around a moment.

    Attributes:
        first_minute: The first minute that is looked at, in seconds since 1970.
        shown: The seconds at which each time on the wall is shown.
    """

    def __init__(self, zone: str, around: float) -> None:
        place = ZoneInfo(zone)
        self.first_minute = int(around) // 60 * 60 - 7 * 86_400
        self.shown: dict[datetime, list[int]] = {}
        for second in range(self.first_minute, self.first_minute + 14 * 86_400, 60):
            minute = datetime.fromtimestamp(second, place).replace(tzinfo=None, fold=0)
            self.shown.setdefault(minute, []).append(second)
        self.first, self.last = min(self.shown), max(self.shown)

    def when(self, minute: datetime) -> list[int]:
        """Return the seconds at which the wall shows a minute, or the next one that it shows at all."""
        while minute not in self.shown:
            minute += MINUTE
        return self.shown[minute]


@st.composite
def moments(draw: st.DrawFn, zone: str) -> int:
    """Any moment of thirty years, every other one near a change of the clocks."""
    moment = draw(st.integers(int(seconds("2007-01-01")), int(seconds("2037-01-01"))))
    if draw(st.booleans()):
        return moment
    offset = datetime.fromtimestamp(moment, ZoneInfo(zone)).utcoffset()
    for day in range(370):
        later = moment + day * 86_400
        if datetime.fromtimestamp(later, ZoneInfo(zone)).utcoffset() != offset:
            return later + draw(st.integers(-86_400, 86_400))
    return moment
