"""What both forms of a report say, word for word."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

from dspyq.batch.reports.comparison import Comparison, Measured
from dspyq.batch.reports.summary import Summary, Timeline, VariantSummary
from dspyq.console.output import percent
from dspyq.core.money import to_usd

VARIANT_COLUMNS = (
    "variant",
    "answered",
    "failed",
    "from cache",
    "mean",
    "p50",
    "p95",
    "p99",
    "tokens in",
    "tokens out",
    "cost",
    "cost a row",
)
_MILLISECONDS_BELOW = 1.0


def variant_cells(variant: VariantSummary) -> list[str]:
    """Return a variant's line of the table."""
    durations = variant.durations
    figures = [durations.mean, *(durations.percentile(share) for share in (0.5, 0.95, 0.99))]
    cost_usd = to_usd(variant.cost_nano_usd)
    return [
        variant.variant,
        f"{variant.ok:,}",
        f"{variant.failed:,}",
        percent(variant.hit_rate),
        *map(duration, figures),
        f"{variant.prompt_tokens:,}",
        f"{variant.completion_tokens:,}",
        money(cost_usd),
        money(cost_usd / variant.computed) if variant.computed else "–",
    ]


def headline(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the figures that come first: what, how much, and what to know about it."""
    lasted = _lasted(summary.timeline)
    rate = f"{summary.lines / lasted * 60:,.0f} {_rows(summary)} a minute" if lasted else ""
    figures = [
        ("answered", f"{summary.ok:,}", f"of {summary.lines + summary.left:,} {_rows(summary)}"),
        ("failed", f"{summary.failed:,}", f"{summary.retryable:,} can be retried" if summary.failed else ""),
        ("not paid again", percent(summary.shared / summary.ok if summary.ok else None), "cached, or shared a run"),
        ("cost", money(to_usd(summary.cost_nano_usd)), ""),
        ("took", duration(lasted), rate),
    ]
    if fallbacks := sum(variant.fallbacks for variant in summary.variants):
        figures.insert(1, ("fallbacks", f"{fallbacks:,}", "of those answered, not the variant's own"))
    if summary.left:
        figures.insert(2, ("not done", f"{summary.left:,}", "run the same command again"))
    return figures


def when(summary: Summary) -> str:
    """Return when the first and the last line came, in UTC."""
    if summary.timeline is None:
        return ""
    first, last = summary.timeline.bars[0].starts_at, summary.timeline.bars[-1].starts_at
    ends_at = last + summary.timeline.bar_seconds
    return f"{_at(first):%Y-%m-%d} {clock(first, summary.timeline)} to {_until(first, ends_at, summary.timeline)} UTC"


def retry_hint(summary: Summary) -> str:
    """Return what to do about rows that failed."""
    if not summary.failed:
        return ""
    stays = summary.failed - summary.retryable
    parts = []
    if summary.retryable:
        parts.append(f"{rows(summary.retryable)} failed on something that passes: dspyq batch retry {summary.output}")
    if stays:
        parts.append(f"{rows(stays)} would fail again: mend them, and run them as a batch of their own")
    return "; ".join(parts) + "."


def comparison_lines(comparison: Comparison) -> list[tuple[str, str]]:
    """Return what a comparison says: what, and how much."""
    lines = [
        (f"same {name}", f"{_shares(share)} of {rows(share.rows)}") for name, share in comparison.agreement.items()
    ]
    if (cost := comparison.cost_difference_usd) is not None:
        lines.append(("cost of a row", f"{_difference(cost, money)}, on {rows(cost.rows)} that both paid for"))
    if (lasts := comparison.duration_difference_seconds) is not None:
        lines.append(("duration of a run", _difference(lasts, duration)))
    return lines


def rows(number: int) -> str:
    """Return a number of rows."""
    return f"{number:,} row{'' if number == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return a duration in its own unit."""
    if seconds is None:
        return "–"
    if seconds < _MILLISECONDS_BELOW:
        return f"{seconds * 1000:,.0f} ms"
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds:,.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def money(amount_usd: float) -> str:
    """Return an amount with the digits that matter."""
    if amount_usd == 0 or amount_usd >= 1:
        return f"${amount_usd:,.2f}"
    digits = 3 - math.ceil(math.log10(amount_usd))
    return f"${amount_usd:.{max(2, digits)}f}"


def clock(seconds: float, timeline: Timeline) -> str:
    """Return a time of day of the timeline, in UTC."""
    return f"{_at(seconds):%H:%M:%S}" if timeline.bar_seconds < 60 else f"{_at(seconds):%H:%M}"  # noqa: PLR2004 - a minute


def rows_a_minute(number: int, timeline: Timeline) -> float:
    """Return the rate of a number of rows in one span of the timeline."""
    return number * 60 / timeline.bar_seconds


def _rows(summary: Summary) -> str:
    return "answers" if summary.comparisons else "rows"


def _until(first: float, last: float, timeline: Timeline) -> str:
    day = "" if _at(first).date() == _at(last).date() else f"{_at(last):%Y-%m-%d} "
    return day + clock(last, timeline)


def _lasted(timeline: Timeline | None) -> float | None:
    return None if timeline is None else float(len(timeline.bars) * timeline.bar_seconds)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _shares(measured: Measured) -> str:
    return f"{measured.value:.1%} ({measured.low:.1%} to {measured.high:.1%})"


def _difference(measured: Measured, shown: Callable[[float], str]) -> str:
    texts = [
        f"{'+' if value >= 0 else '−'}{shown(abs(value))}" for value in (measured.value, measured.low, measured.high)
    ]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"
