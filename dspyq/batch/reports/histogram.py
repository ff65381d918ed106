"""Histogram of millions of durations in little memory: buckets grow with the value, so percentiles are exact to 1 %."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

_GROWTH = math.log(1.02)
#: Shorter durations count as this.
_LEAST = 1e-6


@dataclass
class Histogram:
    """Histogram of positive values.

    Attributes:
        buckets: Number of values in each bucket; a bucket's values differ by 2 % at most.
        number: Number of values.
        total: Their sum.
    """

    buckets: Counter[int] = field(default_factory=Counter)
    number: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Add a value."""
        self.buckets[math.floor(math.log(max(value, _LEAST)) / _GROWTH)] += 1
        self.number += 1
        self.total += value

    @property
    def mean(self) -> float | None:
        """Their mean; None where there are none."""
        return self.total / self.number if self.number else None

    def percentile(self, share: float) -> float | None:
        """Return the value that a share of the values does not exceed, exact to 1 %; None without values."""
        wanted = share * self.number
        below = 0
        for bucket in sorted(self.buckets):
            below += self.buckets[bucket]
            if below >= wanted:
                return _middle(bucket)
        return None

    def bins(self, edges: list[float]) -> list[int]:
        """Return the number of values between each two edges; those beyond the ends count in the first and last."""
        counts = [0] * (len(edges) - 1)
        for bucket, number in self.buckets.items():
            middle = _middle(bucket)
            place = sum(1 for edge in edges[1:-1] if middle >= edge)
            counts[place] += number
        return counts


def _middle(bucket: int) -> float:
    return math.exp((bucket + 0.5) * _GROWTH)
