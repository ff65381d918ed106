"""Plots of a batch."""

from __future__ import annotations

from collections.abc import Sequence

from dspyq.batch.reports.summary import ShipmentSpan, Timeline, TimelineBar
from dspyq.cli.batch.report.texts import clock, moment, rows_a_minute
from dspyq.cli.report.plots import HEIGHT, TICKS, WIDTH, drawing, framed, grid, line, nice_top, rect
from dspyq.cli.report.texts import short_duration

_GAP_SHARE = 0.15
#: The last ones are shown.
MOST_SHIPMENTS = 60
#: So many have room for a text each.
_MOST_MARKED = 12


def throughput(timeline: Timeline) -> str:
    """Return a plot of rows a minute over time, stacked by outcome."""
    rates = [rows_a_minute(bar.computed + bar.shared + bar.failed, timeline) for bar in timeline.bars]
    top = nice_top(max(rates))
    step = WIDTH / len(timeline.bars)
    shapes = []
    for number, bar in enumerate(timeline.bars):
        left = number * step + step * _GAP_SHARE / 2
        stack = (("computed", bar.computed), ("shared", bar.shared), ("failed", bar.failed))
        base, title = 0.0, _title(bar, timeline)
        for kind, count in stack:
            if count:
                high = rows_a_minute(count, timeline) / top * HEIGHT
                shapes.append(rect(left, HEIGHT - base - high, step * (1 - _GAP_SHARE), high, kind, title))
                base += high
    marks = [f"{top * share:,.0f}" if top >= TICKS else f"{top * share:g}" for share in (1, 0.75, 0.5, 0.25, 0)]
    starts = [timeline.bars[round(share * (len(rates) - 1))].starts_at for share in (0, 0.5)] if len(rates) > 2 else []  # noqa: PLR2004 - a start and a middle
    starts = starts or [timeline.bars[0].starts_at]
    times = [*starts, timeline.bars[-1].starts_at + timeline.bar_seconds]
    return framed(
        drawing(grid() + "".join(shapes), "Rows a minute over time"), marks, [clock(t, timeline) for t in times]
    )


def shipments(spans: Sequence[ShipmentSpan]) -> str:
    """Return a plot of shipments over time: a bar each, while it waited and while its provider had it."""
    shown = spans[-MOST_SHIPMENTS:]
    first = min(span.filled_at for span in shown)
    last = max(max(span.filled_at, span.submitted_at, span.ended_at) for span in shown)
    seconds, step = max(1.0, last - first), HEIGHT / len(shown)
    shapes = [line(WIDTH * share, 0, WIDTH * share, HEIGHT, "grid") for share in (0, 0.5, 1)]
    for number, span in enumerate(shown):
        top, high = number * step + step * _GAP_SHARE / 2, step * (1 - _GAP_SHARE)
        submitted = span.submitted_at or last
        ended = (span.ended_at or last) if span.submitted_at else submitted
        title = (
            f"{span.name} of {span.model}: {span.lines:,} calls, {span.state}, {short_duration(ended - span.filled_at)}"
        )
        kind = "failed" if span.unanswered else "computed"
        for start, end, of in ((span.filled_at, submitted, "shared"), (submitted, ended, kind)):
            left, width = (start - first) / seconds * WIDTH, max(2.0, (end - start) / seconds * WIDTH)
            if end > start:
                shapes.append(rect(left, top, min(width, WIDTH - left), high, of, title))
    marks = [f"{span.lines:,} calls" for span in shown] if len(shown) <= _MOST_MARKED else []
    times = [moment(first + share * seconds, first, last) for share in (0, 0.5, 1)]
    return framed(drawing("".join(shapes), "Shipments over time"), marks, times, "plot bands")


def _title(bar: TimelineBar, timeline: Timeline) -> str:
    kinds = ((bar.computed, "computed"), (bar.shared, "not paid again"), (bar.failed, "failed"))
    counts = ", ".join(f"{count:,} {name}" for count, name in kinds if count)
    return f"{clock(bar.starts_at, timeline)}: {counts}"
