"""Sufficient statistics of an arm: sums by cluster, and sums over rows, as plain values.

A row is one call, one computed answer, or one judged exposure. Each row adds 1 to the denominator of its cluster and
its value to the numerator, so a mean is a ratio of sums, and rows of one cluster may depend on each other as they like.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from dspyq.experiments.placement import BUCKETS

COUNTER_BYTES = 8


class ClusterSums(NamedTuple):
    """Sums of an arm by cluster: bucket b's are at index b of both.

    Attributes:
        numerators: Sums of the values, in the unit of the metric (a score, US dollars, seconds).
        denominators: Numbers of rows.
    """

    numerators: tuple[float, ...]
    denominators: tuple[float, ...]


class RowSums(NamedTuple):
    """Sums of an arm over its rows, for the variance that rows have by themselves.

    Attributes:
        rows: The number of rows.
        total: The sum of the values.
        squares: The sum of their squares.
    """

    rows: float
    total: float
    squares: float


class ArmSums(NamedTuple):
    """All sums of one metric in one arm.

    Attributes:
        by_question: By the question's bucket.
        by_unit: By the bucket of the unit that called (of the first one, for a computed answer); None where the unit
            is the question.
        rows: Over rows; None where no squares are kept, which makes variances larger, never smaller.
    """

    by_question: ClusterSums
    by_unit: ClusterSums | None = None
    rows: RowSums | None = None


def unpack_counters(packed: bytes, fields: int, buckets: int = BUCKETS) -> tuple[tuple[int, ...], ...]:
    """Return the counters of each field by bucket.

    Args:
        packed: Signed 64-bit counters, most significant byte first, as Redis packs those of ``BITFIELD … i64``: the
            fields of bucket 0, then those of bucket 1. Where it ends early, the rest is 0.
        fields: Counters of a bucket.
        buckets: The number of buckets.

    Raises:
        ValueError: If it holds more than that, or a part of a counter.
    """
    expected = fields * buckets
    count, rest = divmod(len(packed), COUNTER_BYTES)
    if rest or count > expected:
        raise ValueError(f"{len(packed)} bytes are not at most {buckets} × {fields} counters of {COUNTER_BYTES} bytes")
    counters = struct.unpack(f">{count}q", packed) + (0,) * (expected - count)
    return tuple(counters[field::fields] for field in range(fields))
