"""Days as numbers since 1970, in UTC."""

from __future__ import annotations

SECONDS_OF_DAY = 86_400


def day_at(seconds: float) -> int:
    """Return the number of the day of a time, which is in seconds since 1970."""
    return int(seconds // SECONDS_OF_DAY)
