"""The time that a caller is willing to wait: the header ``Prefer`` (RFC 7240) and the parameter ``wait``."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qs

from dspyq.errors import InvalidOption


class WaitPreference(NamedTuple):
    """A caller's wish.

    Attributes:
        seconds: How long it waits, at most.
        applied: What the header ``Preference-Applied`` states; empty for nothing.
    """

    seconds: float
    applied: str = ""


def read_prefer(header: bytes | None, longest_seconds: float) -> WaitPreference:
    """Return how long a POST waits; what cannot be read is no preference, as in RFC 7240.

    Args:
        header: The header ``Prefer``.
        longest_seconds: ``serve.wait_seconds``, which is also what a caller without a preference waits.
    """
    if not header:
        return WaitPreference(longest_seconds)
    stated: dict[str, str] = {}
    for part in header.decode("latin-1").split(","):
        name, _, value = part.partition(";")[0].partition("=")
        stated.setdefault(name.strip().lower(), value.strip().strip('"'))
    if "respond-async" in stated:
        return WaitPreference(0.0, "respond-async")
    wait = stated.get("wait", "")
    if not (wait.isascii() and wait.isdigit()):
        return WaitPreference(longest_seconds)
    seconds = min(float(wait[:9]), longest_seconds)
    return WaitPreference(seconds, f"wait={seconds:g}")


def read_wait(query: bytes, longest_seconds: float) -> float:
    """Return how long a GET waits: its parameter ``wait``, no time where it is left out.

    Raises:
        InvalidOption: If that is no number of seconds.
    """
    if not query:
        return 0.0
    stated = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("wait")
    if stated is None:
        return 0.0
    text = stated[-1]
    if not (text.isascii() and text.isdigit()):
        raise InvalidOption("wait is a whole number of seconds")
    return min(float(text[:9]), longest_seconds)
