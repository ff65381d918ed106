"""Texts that both forms of a report share."""

from __future__ import annotations

from collections.abc import Callable

from dspyq.batch.reports.comparison import Comparison, Measurement
from dspyq.batch.reports.summary import ShipmentSpan, Summary, Timeline, VariantSummary
from dspyq.cli.report.texts import money, short_duration, utc
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

SHIPMENT_COLUMNS = (
    "shipment", "model", "filled (UTC)", "calls", "waited", "at the provider", "answered", "failed", "undone", "state"
)  # fmt: skip
#: The beginning of a shipment's name, as `dspyq lane show` has it.
_NAME_CHARACTERS = 14
#: Over a shorter time, seconds are shown.
_SECONDS_OF_MINUTES = 600


def shipment_cells(span: ShipmentSpan) -> list[str]:
    """Return a shipment's line of the table."""
    waited = span.submitted_at - span.filled_at if span.submitted_at else None
    there = span.ended_at - span.submitted_at if span.submitted_at and span.ended_at else None
    return [
        span.name[:_NAME_CHARACTERS],
        span.model,
        f"{utc(span.filled_at):%m-%d %H:%M:%S}",
        f"{span.lines:,}",
        short_duration(waited),
        short_duration(there),
        f"{span.answered:,}",
        f"{span.failed:,}",
        f"{span.unanswered:,}",
        span.state,
    ]


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
        *map(short_duration, figures),
        f"{variant.prompt_tokens:,}",
        f"{variant.completion_tokens:,}",
        money(cost_usd),
        money(cost_usd / variant.computed) if variant.computed else "–",
    ]


def headline(summary: Summary) -> list[tuple[str, str, str]]:
    """Return the headline figures, each with its name, value and note."""
    lasted = _lasted(summary)
    rate = f"{summary.lines / lasted * 60:,.0f} {_rows(summary)} a minute" if lasted else ""
    figures = [
        ("answered", f"{summary.ok:,}", f"of {summary.lines + summary.left:,} {_rows(summary)}"),
        ("failed", f"{summary.failed:,}", f"{summary.retryable:,} can be retried" if summary.failed else ""),
        ("not paid again", percent(summary.shared / summary.ok if summary.ok else None), "cached, or shared a run"),
        ("cost", money(to_usd(summary.cost_nano_usd)), ""),
        ("took", short_duration(lasted), rate),
    ]
    if fallbacks := sum(variant.fallbacks for variant in summary.variants):
        figures.insert(1, ("fallbacks", f"{fallbacks:,}", "of those answered, not the variant's own"))
    if truncated := sum(variant.truncated for variant in summary.variants):
        figures.insert(1, ("cut off", f"{truncated:,}", "of those answered, at their model's max_tokens"))
    if summary.left:
        figures.insert(2, ("not done", f"{summary.left:,}", "run the same command again"))
    return figures


def when(summary: Summary) -> str:
    """Return the times at which it began and had its last line, in UTC."""
    if (span := _span(summary)) is None:
        return ""
    first, last = span
    begins, ends = moment(first, first, last), moment(last, first, last)
    day = "" if utc(first).date() != utc(last).date() else f"{utc(first):%Y-%m-%d} "
    return f"{day}{begins} to {ends} UTC"


def retry_hint(summary: Summary) -> str:
    """Return advice on failed rows."""
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
    """Return the lines of a comparison, each as a label and a value."""
    lines = [
        (f"same {name}", f"{_shares(share)} of {rows(share.rows)}") for name, share in comparison.agreement.items()
    ]
    lines += [
        (f"score {name}", f"{_difference(score, _score)}, on {rows(score.rows)}")
        for name, score in comparison.score_differences.items()
    ]
    if (cost := comparison.cost_difference_usd) is not None:
        lines.append(("cost of a row", f"{_difference(cost, money)}, on {rows(cost.rows)} that both paid for"))
    if (lasts := comparison.duration_difference_seconds) is not None:
        lines.append(("duration of a run", _difference(lasts, short_duration)))
    return lines


def rows(number: int) -> str:
    """Return a number of rows."""
    return f"{number:,} row{'' if number == 1 else 's'}"


def clock(seconds: float, timeline: Timeline) -> str:
    """Return a time of day of the timeline, in UTC."""
    return f"{utc(seconds):%H:%M:%S}" if timeline.bar_seconds < 60 else f"{utc(seconds):%H:%M}"  # noqa: PLR2004 - a minute


def moment(seconds: float, first: float, last: float) -> str:
    """Return a time between two others, in UTC, as exactly as their distance needs."""
    day = "" if utc(first).date() == utc(last).date() else f"{utc(seconds):%Y-%m-%d} "
    return day + (f"{utc(seconds):%H:%M:%S}" if last - first < _SECONDS_OF_MINUTES else f"{utc(seconds):%H:%M}")


def rows_a_minute(number: int, timeline: Timeline) -> float:
    """Return the rate of a number of rows in one span of the timeline."""
    return number * 60 / timeline.bar_seconds


def _rows(summary: Summary) -> str:
    return "answers" if summary.comparisons else "rows"


def _span(summary: Summary) -> tuple[float, float] | None:
    """Return when its first shipment was filled, or its first row done, and when its last row was."""
    if summary.timeline is None:
        return None
    bars = summary.timeline.bars
    began = [bars[0].starts_at, *(span.filled_at for span in summary.shipments)]
    return float(min(began)), float(bars[-1].starts_at + summary.timeline.bar_seconds)


def _lasted(summary: Summary) -> float | None:
    span = _span(summary)
    return None if span is None else span[1] - span[0]


def _shares(measured: Measurement) -> str:
    return f"{measured.value:.1%} ({_interval(measured, lambda share: f'{share:.1%}')})"


def _difference(measured: Measurement, shown: Callable[[float], str]) -> str:
    def signed(value: float) -> str:
        return f"{'+' if value >= 0 else '−'}{shown(abs(value))}"

    return f"{signed(measured.value)} ({_interval(measured, signed)})"


def _interval(measured: Measurement, shown: Callable[[float], str]) -> str:
    if measured.interval is None:
        return "no interval: too few independent rows, or all alike"
    return f"{shown(measured.interval.low)} to {shown(measured.interval.high)}"


def _score(value: float) -> str:
    return f"{value:.3g}"


def clusters_remark(comparison: Comparison) -> str:
    """Return the explanation of a comparison's intervals."""
    measured = comparison.duration_difference_seconds
    clusters = f", in {measured.clusters:,} clusters" if measured and measured.clusters < measured.rows else ""
    return (
        f"{rows(comparison.rows)} that both answered{clusters}; in brackets what holds the true figure 95 times in "
        "100, however often it is looked at."
    )
