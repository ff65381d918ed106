"""Plots as HTML around shapes of SVG: the shapes stretch with the page, the text keeps its size, also on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from dspyq.batch.reports.summary import Bar, Timeline, VariantSummary
from dspyq.cli.batch.report.texts import clock, duration, rows, rows_a_minute

_WIDTH, _HEIGHT = 1000, 200
_GAP_SHARE = 0.15
_DURATION_BINS = 48
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 4


def throughput(timeline: Timeline) -> str:
    """Return rows a minute over time, stacked by what became of them."""
    rates = [rows_a_minute(bar.computed + bar.shared + bar.failed, timeline) for bar in timeline.bars]
    top = nice_top(max(rates))
    step = _WIDTH / len(timeline.bars)
    shapes = []
    for number, bar in enumerate(timeline.bars):
        left = number * step + step * _GAP_SHARE / 2
        stack = (("computed", bar.computed), ("shared", bar.shared), ("failed", bar.failed))
        base, title = 0.0, _title(bar, timeline)
        for kind, count in stack:
            if count:
                high = rows_a_minute(count, timeline) / top * _HEIGHT
                shapes.append(_rect(left, _HEIGHT - base - high, step * (1 - _GAP_SHARE), high, kind, title))
                base += high
    marks = [f"{top * share:,.0f}" if top >= _TICKS else f"{top * share:g}" for share in (1, 0.75, 0.5, 0.25, 0)]
    starts = [timeline.bars[round(share * (len(rates) - 1))].starts_at for share in (0, 0.5)] if len(rates) > 2 else []  # noqa: PLR2004 - a start and a middle
    starts = starts or [timeline.bars[0].starts_at]
    times = [*starts, timeline.bars[-1].starts_at + timeline.bar_seconds]
    return _framed(
        _svg(_grid() + "".join(shapes), "Rows a minute over time"), marks, [clock(t, timeline) for t in times]
    )


def durations(variants: Sequence[VariantSummary]) -> str:
    """Return how long runs took, a histogram for each variant over one axis that grows by factors."""
    timed = [variant for variant in variants if variant.durations.number]
    if not timed:
        return ""
    low = min(variant.durations.percentile(0.001) or 0.0 for variant in timed) / 1.2
    high = max(variant.durations.percentile(0.999) or 0.0 for variant in timed) * 1.2
    edges = [low * (high / low) ** (number / _DURATION_BINS) for number in range(_DURATION_BINS + 1)]
    ticks = [duration(low * (high / low) ** (number / _TICKS)) for number in range(_TICKS + 1)]
    parts = [_duration_plot(variant, edges) for variant in timed]
    axis = f'<div class="x">{"".join(f"<span>{tick}</span>" for tick in ticks)}</div>'
    return "".join(parts) + axis


def shares(amounts: Sequence[tuple[str, float, str]], kind: str) -> str:
    """Return amounts as bars beside each other, each with its name and text."""
    most = max((amount for _, amount, _ in amounts), default=0.0)
    lines = []
    for name, amount, text in amounts:
        wide = amount / most * 100 if most else 0.0
        bar = f'<span class="bar {kind}" style="width:{wide:.1f}%"></span>'
        lines.append(f"<dt>{escape(name)}</dt><dd>{bar}<b>{escape(text)}</b></dd>")
    return f'<dl class="shares">{"".join(lines)}</dl>'


def nice_top(highest: float) -> float:
    """Return a round number that is not less."""
    if highest <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(highest))
    return float(next(step * power for step in _STEPS if step * power >= highest * 0.999))


def _duration_plot(variant: VariantSummary, edges: Sequence[float]) -> str:
    counts = variant.durations.bins(list(edges))
    step, most = _WIDTH / len(counts), max(counts)
    shapes = [
        _rect(number * step, _HEIGHT * (1 - count / most), step * 0.9, _HEIGHT * count / most, "computed", rows(count))
        for number, count in enumerate(counts)
        if count
    ]
    spread = math.log(edges[-1] / edges[0])
    labels = []
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        value = variant.durations.percentile(share) or edges[0]
        at = math.log(value / edges[0]) / spread * _WIDTH
        shapes.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{_HEIGHT}"/>')
        labels.append(f"{name} {duration(value)}")
    svg = _svg("".join(shapes), f"How long runs of {variant.variant} took")
    return f"<h3>{escape(variant.variant)} <small>{' · '.join(labels)}</small></h3><div class='low'>{svg}</div>"


def _title(bar: Bar, timeline: Timeline) -> str:
    kinds = ((bar.computed, "computed"), (bar.shared, "not paid again"), (bar.failed, "failed"))
    counts = ", ".join(f"{count:,} {name}" for count, name in kinds if count)
    return f"{clock(bar.starts_at, timeline)}: {counts}"


def _framed(svg: str, marks: Sequence[str], ticks: Sequence[str]) -> str:
    y = "".join(f"<span>{mark}</span>" for mark in marks)
    x = "".join(f"<span>{tick}</span>" for tick in ticks)
    return f'<div class="plot"><div class="y">{y}</div>{svg}<div class="x">{x}</div></div>'


def _svg(shapes: str, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{shapes}</svg>'
    )


def _grid() -> str:
    heights = [_HEIGHT * number / _TICKS for number in range(_TICKS + 1)]
    return "".join(f'<line class="grid" x1="0" x2="{_WIDTH}" y1="{at:g}" y2="{at:g}"/>' for at in heights)


def _rect(x: float, y: float, width: float, height: float, kind: str, title: str) -> str:  # noqa: PLR0913, PLR0917 - a rectangle's
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}><title>{escape(title)}</title></rect>'
