"""What rows yet to run come to, from a sample of past runs: a figure and the interval that holds it 95 times in 100."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_DRAWS = 400
_LOW, _HIGH = 0.025, 0.975
_NORMAL_95 = 1.96
#: With fewer runs, or sizes that are all alike, a line through them says nothing.
_LEAST_FOR_A_LINE = 20


@dataclass(frozen=True)
class Interval:
    """A figure that is not known yet.

    Attributes:
        low: What it hardly falls below.
        expected: What to expect; None where nothing is known but the ends.
        high: What it hardly exceeds.
    """

    low: float
    expected: float | None
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the interval of a multiple."""
        return Interval(
            self.low * factor, None if self.expected is None else self.expected * factor, self.high * factor
        )


NOTHING = Interval(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Rows:
    """The rows yet to run.

    Attributes:
        number: How many.
        input_bytes: The bytes of all their inputs.
    """

    number: int
    input_bytes: int


def bootstrap(values: Sequence[float], sizes: Sequence[int] | None, rows: Rows, seed: int = 0) -> Interval:
    """Return what rows come to in all, from what past runs came to.

    The interval is of two parts: how well the sample tells the mean (it is drawn again and again from itself), and how
    much the rows themselves differ.

    Args:
        values: What each past run came to.
        sizes: The bytes of each one's inputs, where known: what grows with the inputs is then scaled to the rows'.
        rows: The rows yet to run.
        seed: Decides what is drawn.
    """
    numbers = random.Random(seed)  # noqa: S311 - no secret
    fit = _line if sizes and len(values) >= _LEAST_FOR_A_LINE and len(set(sizes)) > 1 else _mean
    pairs = list(zip(sizes or [0] * len(values), values, strict=True))
    intercept, slope = fit(pairs)
    spread = math.sqrt(sum((value - intercept - slope * size) ** 2 for size, value in pairs) / len(pairs))
    totals = []
    for _ in range(_DRAWS):
        drawn_intercept, drawn_slope = fit(numbers.choices(pairs, k=len(pairs)))
        noise = numbers.gauss(0.0, spread * math.sqrt(rows.number))
        totals.append(drawn_intercept * rows.number + drawn_slope * rows.input_bytes + noise)
    totals.sort()
    low, high = (max(0.0, totals[round(share * (_DRAWS - 1))]) for share in (_LOW, _HIGH))
    expected = max(0.0, intercept * rows.number + slope * rows.input_bytes)
    return Interval(min(low, expected), expected, max(high, expected))


def from_mean(mean: float, runs: int, rows: Rows) -> Interval:
    """Return what rows come to in all, where only the mean of past runs is known.

    Runs are taken to differ as much as their mean is large, as waiting times do.
    """
    expected = mean * rows.number
    half = _NORMAL_95 * mean * math.sqrt(rows.number + rows.number**2 / runs)
    return Interval(max(0.0, expected - half), expected, expected + half)


def add_up(parts: Sequence[Interval]) -> Interval:
    """Return the interval of a sum of figures that do not depend on each other."""
    if any(part.expected is None for part in parts):
        return Interval(sum(part.low for part in parts), None, sum(part.high for part in parts))
    expected = sum(part.expected or 0.0 for part in parts)
    below, above = (
        math.sqrt(sum(((part.expected or 0.0) - end(part)) ** 2 for part in parts)) for end in (_low, _high)
    )
    return Interval(max(0.0, expected - below), expected, expected + above)


def _low(part: Interval) -> float:
    return part.low


def _high(part: Interval) -> float:
    return part.high


_Fit = Callable[[Sequence[tuple[int, float]]], tuple[float, float]]


def _mean(pairs: Sequence[tuple[int, float]]) -> tuple[float, float]:
    return sum(value for _, value in pairs) / len(pairs), 0.0


def _line(pairs: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Least squares; a line that falls, or would start below nothing, is noise: then the mean."""
    number = len(pairs)
    mean_size = sum(size for size, _ in pairs) / number
    mean_value = sum(value for _, value in pairs) / number
    square = sum((size - mean_size) ** 2 for size, _ in pairs)
    slope = sum((size - mean_size) * (value - mean_value) for size, value in pairs) / square if square else 0.0
    intercept = mean_value - slope * mean_size
    return (intercept, slope) if slope > 0 and intercept >= 0 else (mean_value, 0.0)
