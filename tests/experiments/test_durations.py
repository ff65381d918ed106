"""Histograms of times: percentiles to the width of a span, and bins that lose nothing."""

import math
import random
import struct

import pytest

from dspyq.experiments.durations import DurationCounts


def counted(seconds):
    """The durations as sums.lua counts them."""
    counts = [0] * 96
    for each in seconds:
        counts[min(95, math.floor(math.log(max(1, each * 1000)) / 0.14))] += 1
    return DurationCounts.unpacked(struct.pack(">96I", *counts))


def test_percentiles_are_exact_to_a_span():
    draw = random.Random(5)  # noqa: S311 - a sample, no secret
    seconds = sorted(draw.lognormvariate(0.5, 0.8) for _ in range(20_000))
    found = counted(seconds)
    for share in (0.01, 0.5, 0.95, 0.99):
        assert found.percentile(share) == pytest.approx(seconds[int(share * 20_000)], rel=0.15)


def test_durations_beyond_the_ends_are_in_the_first_and_the_last_span():
    found = counted([0.0, 0.0001, 10_000.0])
    assert (found.counts[0], found.counts[95], found.number) == (2, 1, 3)
    assert found.percentile(0.5) < 0.0012


def test_bins_hold_every_duration():
    found = counted([0.01, 0.3, 0.31, 2.0, 700.0])
    bins = found.bins([0.2, 0.5, 1.0, 3.0])
    assert sum(bins) == pytest.approx(5)
    assert bins == pytest.approx([3, 0, 2])


def test_there_is_no_percentile_of_nothing():
    assert DurationCounts.unpacked(b"").percentile(0.5) is None
    assert DurationCounts.unpacked(struct.pack(">2I", 0, 3) + b"\0").number == 3
