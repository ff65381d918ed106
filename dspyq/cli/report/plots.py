"""Parts of plots, as HTML around SVG shapes: shapes stretch with the page, text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dspyq.cli.report.texts import escape

#: The size of a plot in its own units.
WIDTH, HEIGHT = 1000, 200
TICKS = 4
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def nice_top(highest: float) -> float:
    """Return the next larger round number."""
    if highest <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(highest))
    return float(next(step * power for step in _STEPS if step * power >= highest * 0.999))


def framed(svg: str, marks: Sequence[str], ticks: Sequence[str], kind: str = "plot") -> str:
    """Return a plot between its axes.

    Args:
        svg: Its shapes.
        marks: Texts of the axis upwards, from the top, at equal distances.
        ticks: Texts of the axis to the right, at equal distances.
        kind: Its CSS classes; with ``bands``, a mark stands beside the middle of its band, not at a line of the grid.
    """
    y = "".join(f"<span>{mark}</span>" for mark in marks)
    x = "".join(f"<span>{tick}</span>" for tick in ticks)
    return f'<div class="{kind}"><div class="y">{y}</div>{svg}<div class="x">{x}</div></div>'


def drawing(shapes: str, label: str) -> str:
    """Return shapes as a picture with a name."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{shapes}</svg>'
    )


def grid(spaces: int = TICKS) -> str:
    """Return lines across the plot, one at each mark."""
    return "".join(
        line(0, HEIGHT * number / spaces, WIDTH, HEIGHT * number / spaces, "grid") for number in range(spaces + 1)
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Return a line."""
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str, title: str) -> str:  # noqa: PLR0913, PLR0917 - a rectangle's
    """Return a rectangle, with a text where a pointer rests on it."""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{kind}" {place}><title>{escape(title)}</title></rect>'


def shares(amounts: Sequence[tuple[str, float, str]], kind: str) -> str:
    """Return amounts as bars beside each other, each with its name and text."""
    most = max((amount for _, amount, _ in amounts), default=0.0)
    lines = []
    for name, amount, text in amounts:
        wide = amount / most * 100 if most else 0.0
        bar = f'<span class="bar {kind}" style="width:{wide:.1f}%"></span>'
        lines.append(f"<dt>{escape(name)}</dt><dd>{bar}<b>{escape(text)}</b></dd>")
    return f'<dl class="shares">{"".join(lines)}</dl>'


def legend(kinds: Sequence[tuple[str, str]]) -> str:
    """Return the names of kinds of shapes, each with its CSS class before it."""
    items = "".join(f'<span><i class="{kind}"></i>{escape(name)}</span>' for kind, name in kinds)
    return f'<div class="legend">{items}</div>'
