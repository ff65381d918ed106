"""Periods as options state them: ``90d``, ``12h``, ``30m``."""

from __future__ import annotations

import re

from dspyq.errors import InvalidOption

_PERIOD = re.compile(r"(\d{1,6})\s*([dhm])")
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60}


def read_period(stated: str, option: str) -> int:
    """Return a period in seconds.

    Args:
        stated: The text.
        option: The option that states it, for the error.

    Raises:
        InvalidOption: If it is none.
    """
    found = _PERIOD.fullmatch(stated.strip())
    if found is None:
        raise InvalidOption(f"{option}: state a number of days, hours or minutes, as in 14d, 12h or 30m")
    return int(found[1]) * _SECONDS[found[2]]
