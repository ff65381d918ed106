"""Times of an arm's computed answers, as a histogram whose spans grow with the time."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dspyq.experiments.state import ExperimentState
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import experiment_sums_key
from dspyq.store.spines import each_spine

#: As ``count_time`` in sums.lua has them: counters, and the logarithm of a span's end over its start.
_SPANS, _GROWTH = 96, 0.14
_MILLISECOND = 1e-3


@dataclass(frozen=True)
class DurationCounts:
    """Counts of durations by span: span n is from e^(0.14 n) to e^(0.14 (n + 1)) milliseconds, the first from 0.

    Attributes:
        counts: The number of durations in each span; those beyond the last count in it.
    """

    counts: tuple[int, ...]

    @classmethod
    def unpacked(cls, packed: bytes) -> DurationCounts:
        """Return the counts that Redis has packed, the most significant byte of each first; what is missing is 0."""
        known = min(len(packed) // 4, _SPANS)
        return cls(struct.unpack(f">{known}I", packed[: 4 * known]) + (0,) * (_SPANS - known))

    def plus(self, other: DurationCounts) -> DurationCounts:
        """Return the counts of both."""
        return DurationCounts(tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    @property
    def number(self) -> int:
        """The number of durations."""
        return sum(self.counts)

    def percentile(self, share: float) -> float | None:
        """Return the seconds that a share of the durations does not exceed, to a span's width; None without any."""
        wanted, below = share * self.number, 0
        for span, count in enumerate(self.counts):
            if count and below + count >= wanted:
                return _edge(span + (wanted - below) / count)
            below += count
        return None

    def bins(self, edges: Sequence[float]) -> list[float]:
        """Return the durations between each two edges, in seconds, as if those of a span were spread over it."""
        places = [math.log(max(edge, 1e-9) / _MILLISECOND) / _GROWTH for edge in edges]
        places[0], places[-1] = -math.inf, math.inf
        return [
            sum(
                count * max(0.0, min(high, span + 1) - max(low, span))
                for span, count in enumerate(self.counts)
                if count
            )
            for low, high in itertools.pairwise(places)
        ]


def read_durations(state: ExperimentState) -> dict[str, DurationCounts]:
    """Return the times of each arm's computed answers.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    found = {arm: DurationCounts.unpacked(b"") for arm in state.arms}
    with redis_errors("read the experiment's times"):
        for _ in each_spine():
            base = experiment_sums_key(state.program, state.epoch)
            stored = cast("list[bytes | None]", jobs_client().mget([f"{base}{arm}:times" for arm in state.arms]))
            for arm, packed in zip(state.arms, stored, strict=True):
                found[arm] = found[arm].plus(DurationCounts.unpacked(packed or b""))
    return found


def _edge(place: float) -> float:
    return math.exp(_GROWTH * place) * _MILLISECOND
