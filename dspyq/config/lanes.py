"""Names of the lanes of batches: live calls, the provider's batch interface, and its flex tier."""

from __future__ import annotations

import re
from typing import Literal

#: Lanes that a batch can ask for; without one its calls are live.
LaneName = Literal["provider", "flex"]
#: All ways in which a call is priced.
Lane = Literal["live", "provider", "flex"]
_HOUR = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def check_hour(text: str) -> str:
    """Return an hour of the day.

    Raises:
        ValueError: If it is not of the form ``07:00`` or ``07:00:30``.
    """
    if not _HOUR.fullmatch(text):
        raise ValueError(f"{text!r} is no hour of the day; write it as 07:00")
    return text
