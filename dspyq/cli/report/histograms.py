"""Histograms of durations, one below the other over one logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from dspyq.cli.report.plots import HEIGHT, TICKS, WIDTH, drawing, line, rect
from dspyq.cli.report.texts import escape, short_duration

_BINS = 48


class SpreadDurations(Protocol):
    """Durations that a histogram is drawn of, in seconds."""

    @property
    def number(self) -> int:
        """The number of durations."""

    def percentile(self, share: float) -> float | None:
        """Return the duration that a share of them does not exceed; None without any."""

    def bins(self, edges: list[float], /) -> Sequence[float]:
        """Return the number of durations between each two edges."""


def durations(named: Mapping[str, SpreadDurations], one: str) -> str:
    """Return a histogram of each name's durations; empty without any.

    Args:
        named: The durations of each name.
        one: The name of what each lasted: ``row``.
    """
    timed = {name: each for name, each in named.items() if each.number}
    if not timed:
        return ""
    low = min(each.percentile(0.001) or 0.0 for each in timed.values()) / 1.2
    high = max(each.percentile(0.999) or 0.0 for each in timed.values()) * 1.2
    edges = [low * (high / low) ** (number / _BINS) for number in range(_BINS + 1)]
    ticks = [short_duration(low * (high / low) ** (number / TICKS)) for number in range(TICKS + 1)]
    parts = [_one(name, each, edges, one) for name, each in timed.items()]
    axis = f'<div class="x">{"".join(f"<span>{tick}</span>" for tick in ticks)}</div>'
    return "".join(parts) + axis


def percentiles(each: SpreadDurations) -> dict[str, float]:
    """Return the percentiles that tables and plots show; empty without durations."""
    found = {f"p{round(share * 100)}": each.percentile(share) for share in (0.5, 0.95, 0.99)}
    return {name: value for name, value in found.items() if value is not None}


def _one(name: str, each: SpreadDurations, edges: list[float], one: str) -> str:
    counts = each.bins(edges)
    step, most = WIDTH / len(counts), max(counts)
    shapes = [
        rect(
            number * step, HEIGHT * (1 - count / most), step * 0.9, HEIGHT * count / most, "computed", _text(count, one)
        )
        for number, count in enumerate(counts)
        if count
    ]
    spread = math.log(edges[-1] / edges[0])
    labels = []
    for label, value in percentiles(each).items():
        at = math.log(value / edges[0]) / spread * WIDTH
        shapes.append(line(at, 0, at, HEIGHT, "mark"))
        labels.append(f"{label} {short_duration(value)}")
    svg = drawing("".join(shapes), f"How long {one}s of {name} took")
    return f"<h3>{escape(name)} <small>{' · '.join(labels)}</small></h3><div class='low'>{svg}</div>"


def _text(count: float, one: str) -> str:
    return f"{count:,.0f} {one}{'' if round(count) == 1 else 's'}"
