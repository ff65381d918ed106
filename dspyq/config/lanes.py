"""Names of the lanes of batches: live calls, the provider's batch interface, and its flex tier."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

#: Lanes that a batch can ask for; without one its calls are live.
LaneName = Literal["provider", "provider,live", "provider,stop", "flex"]
#: All ways in which a call is priced.
Lane = Literal["live", "provider", "flex"]
#: The dialects of live calls whose bodies the lines of a batch interface have, by its name.
BATCH_DIALECTS: Mapping[str, str] = {"openai": "openai-chat", "anthropic": "anthropic", "gemini": "gemini"}
#: The end of the name of a lane whose rest, what its money buys too little of at once, is not made live.
_STOP = ",stop"
_HOUR = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def check_hour(text: str) -> str:
    """Return an hour of the day.

    Raises:
        ValueError: If it is not of the form ``07:00`` or ``07:00:30``.
    """
    if not _HOUR.fullmatch(text):
        raise ValueError(f"{text!r} is no hour of the day; write it as 07:00")
    return text


def split_lane(name: str) -> tuple[str, bool]:
    """Return the lane of a name as users state it, and if what it has no money for is made live."""
    lane, _, _ = name.partition(",")
    return lane, not name.endswith(_STOP)
