"""Estimate for rows yet to run, from a sample of past runs: an expected value and its 95 % interval."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_DRAWS = 400
_LOW, _HIGH = 0.025, 0.975
_NORMAL_95 = 1.96
#: With fewer runs, or equal sizes, a regression line through them means nothing.
_LEAST_FOR_A_LINE = 20


@dataclass(frozen=True)
class Interval:
    """An estimated figure with its 95 % interval.

    Attributes:
        low: Lower end.
        expected: Expected value; None if only the ends are known.
        high: Upper end.
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
    """Estimate the total of rows from the values of past runs.

    The interval covers two sources of error: the uncertainty of the sample's mean (by bootstrap resampling), and the
    variation between the rows themselves.

    Args:
        values: The value of each past run.
        sizes: The input bytes of each past run, if known: the part that grows with the inputs is scaled to the rows'.
        rows: The rows yet to run.
        seed: Seed of the resampling.
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
    """Estimate the total of rows if only the mean of past runs is known.

    The standard deviation of runs is assumed equal to their mean, as for waiting times.
    """
    expected = mean * rows.number
    half = _NORMAL_95 * mean * math.sqrt(rows.number + rows.number**2 / runs)
    return Interval(max(0.0, expected - half), expected, expected + half)


def add_up(parts: Sequence[Interval]) -> Interval:
    """Return the interval of a sum of independent figures."""
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


def _mean(pairs: Sequence[tuple[int, float]]) -> tuple[float, float]:
    return sum(value for _, value in pairs) / len(pairs), 0.0


def _line(pairs: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the least-squares line; if it falls or starts below zero, it is noise, and the mean is returned."""
    number = len(pairs)
    mean_size = sum(size for size, _ in pairs) / number
    mean_value = sum(value for _, value in pairs) / number
    square = sum((size - mean_size) ** 2 for size, _ in pairs)
    slope = sum((size - mean_size) * (value - mean_value) for size, value in pairs) / square if square else 0.0
    intercept = mean_value - slope * mean_size
    return (intercept, slope) if slope > 0 and intercept >= 0 else (mean_value, 0.0)
