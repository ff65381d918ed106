"""Local wall-clock times as seconds since 1970: daylight saving time skips some minutes and repeats others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_MINUTE = timedelta(minutes=1)


def find_timezone(name: str) -> ZoneInfo:
    """Return a timezone of the IANA database.

    Raises:
        ValueError: If there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError(f"there is no timezone {name!r}; name one of the IANA database") from None


def seconds_at(shown: datetime, zone: ZoneInfo, *, is_last: bool = False) -> int:
    """Return the time at which a clock in a timezone shows a minute.

    A skipped minute counts as the next one that exists.

    Args:
        shown: The local time, without a timezone.
        zone: Its time zone.
        is_last: Of a minute that is shown twice, whether the second time is meant.

    Returns:
        Seconds since 1970.
    """
    while not _is_ever_shown(shown, zone):
        shown += _MINUTE
    return int(shown.replace(tzinfo=zone, fold=int(is_last)).timestamp())


def shown_at(seconds: float, zone: ZoneInfo) -> datetime:
    """Return the local time in a timezone, to the minute and without a timezone."""
    return datetime.fromtimestamp(seconds, zone).replace(second=0, microsecond=0, tzinfo=None, fold=0)


def _is_ever_shown(shown: datetime, zone: ZoneInfo) -> bool:
    back_and_forth = shown.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)
    return back_and_forth.replace(tzinfo=None, fold=0) == shown
