"""Texts that reports share."""

from __future__ import annotations

import html
import math
from datetime import UTC, datetime

from dspyq.core.visible import visible_line

_MILLISECONDS_BELOW = 1.0
#: Below this, milliseconds have a decimal, so that the marks of an axis differ.
_TENTHS_BELOW = 0.01


def escape(text: str) -> str:
    """Return a text escaped for HTML, with control characters shown."""
    return html.escape(visible_line(text))


def short_duration(seconds: float | None) -> str:
    """Return a duration in its own unit."""
    if seconds is None:
        return "–"
    if 0 < seconds < _TENTHS_BELOW:
        return f"{seconds * 1000:.1f} ms"
    if seconds < _MILLISECONDS_BELOW:
        return f"{seconds * 1000:,.0f} ms"
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:,.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def money(amount_usd: float) -> str:
    """Return an amount with its significant digits."""
    if amount_usd == 0 or amount_usd >= 1:
        return f"${amount_usd:,.2f}"
    digits = 3 - math.ceil(math.log10(amount_usd))
    return f"${amount_usd:.{max(2, digits)}f}"


def utc(seconds: float) -> datetime:
    """Return a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
