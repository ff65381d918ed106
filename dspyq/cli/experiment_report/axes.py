"""Axes with round marks, and a plot between them whose texts stand at any place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dspyq.cli.report.plots import HEIGHT, WIDTH, drawing
from dspyq.cli.report.texts import escape

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_MARKS = 40


@dataclass(frozen=True)
class Axis:
    """An axis between two values.

    Attributes:
        low: Its least value.
        high: Its greatest value.
        step: The distance of its marks, which are multiples of it.
    """

    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Iterable[float], *, marks: int = 5, is_rounded: bool = True) -> Axis:
        """Return an axis that holds these values, with about so many round marks.

        Args:
            values: The values; those that are not finite are left out.
            marks: The number of marks to aim at.
            is_rounded: Whether it ends at marks; else at the values.
        """
        finite = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(finite), max(finite)
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)
        step = _nice_step((high - low) / marks)
        if is_rounded:
            low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high, step)

    @property
    def marks(self) -> list[float]:
        """The values of its marks, in rising order."""
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        return [number * self.step for number in range(first, min(last, first + _MOST_MARKS) + 1)]

    def share(self, value: float) -> float:
        """Return the place of a value, 0 at the low end and 1 at the high one; what is beyond is at the end."""
        if math.isnan(value):
            return 0.0
        bounded = min(max(value, self.low), self.high)
        return (bounded - self.low) / (self.high - self.low)

    def x(self, value: float) -> float:
        """Return the place of a value from the left."""
        return self.share(value) * WIDTH

    def y(self, value: float) -> float:
        """Return the place of a value from the top."""
        return (1 - self.share(value)) * HEIGHT


def plot(
    shapes: str,
    label: str,
    *,
    left: Sequence[tuple[float, str]],
    below: Sequence[tuple[float, str]],
    inside: Sequence[str] = (),
) -> str:
    """Return a plot.

    Args:
        shapes: Its shapes.
        label: Its name, for readers who do not see it.
        left: Texts beside it, each with its place from the bottom, 0 to 1.
        below: Texts below it, each with its place from the left.
        inside: Texts in it, as ``note`` returns them.
    """
    y = "".join(f'<span style="bottom:{share:.1%}">{escape(text)}</span>' for share, text in left)
    widest = max((text for _, text in left), key=len, default="")
    x = "".join(
        f'<span class="{_edge(share)}{" odd" if number % 2 else ""}" style="left:{share:.1%}">{escape(text)}</span>'
        for number, (share, text) in enumerate(below)
    )
    return (
        f'<div class="chart"><div class="up"><b>{escape(widest)}</b>{y}</div>'
        f'<div class="area">{drawing(shapes, label)}{"".join(inside)}</div><div class="along">{x}</div></div>'
    )


def note(x: float, y: float, text: str, kind: str = "") -> str:
    """Return a text in a plot: its place from the left and from the bottom, 0 to 1, and its CSS class."""
    side = f"right:{1 - x:.1%}" if x > 0.6 else f"left:{x:.1%}"  # noqa: PLR2004 - it must fit to the right
    return f'<span class="note {kind}" style="{side};bottom:{y:.1%}">{escape(text)}</span>'


def _edge(share: float) -> str:
    return "first" if share < 0.04 else "last" if share > 0.96 else ""  # noqa: PLR2004 - texts at the ends stay inside


def _nice_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(each * power for each in _STEPS if each * power >= step * 0.999)
