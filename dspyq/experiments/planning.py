"""Plans: the rows that an effect needs, and the calls that bring them, before anything runs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from dspyq.experiments.effects import MetricEffect
from dspyq.experiments.sequential import SequentialRule, Track, advance

#: Looks for the information of the plan.
LOOKS = 60


class Chance(NamedTuple):
    """The chances of a verdict by some information.

    Attributes:
        share: The information, over the planned one.
        found: The chance that the interval has left 0 by then.
        settled: The chance that it has, or is within the least effect that matters.
    """

    share: float
    found: float
    settled: float


def rows_needed(information: float, row_variance: float, arms: int = 2) -> float:
    """Return the rows of all arms together that bring this information about two of them.

    V = row_variance · (1 / n_control + 1 / n_challenger), with n = rows / arms each.

    Args:
        information: 1 / V.
        row_variance: What one row is worth: p (1 - p) for a yes or no, times the design effect where rows depend on
            each other; (σ / mean)² for a logarithm.
        arms: Arms in equal parts, the control among them.
    """
    return information * row_variance * 2 * arms


def design_effect(rows_per_unit: float, correlation: float) -> float:
    """Return the factor of the variance by equal clusters: 1 + (m - 1) ρ (Kish, "Survey Sampling", 1965)."""
    return 1 + max(0.0, rows_per_unit - 1) * correlation


def simulate(
    rule: SequentialRule, effect: float, *, shares: Sequence[float] = (0.5, 1.0, 2.0), paths: int = 2000, seed: int = 1
) -> list[Chance]:
    """Return the chances of a verdict, from Brownian paths that `sequential.advance` looks at as it does at real sums.

    Args:
        rule: The rule.
        effect: The true effect.
        shares: Information over the planned one, at which to report.
        paths: Simulated experiments; the standard error of a chance is at most 0.5 / √paths.
        seed: Of the random numbers.
    """
    draw = random.Random(seed)  # noqa: S311 - a simulation, no secret
    marks = [max(1, round(share * LOOKS)) for share in shares]
    found, settled = [0] * len(marks), [0] * len(marks)
    step = rule.information / LOOKS
    for _ in range(paths):
        track, position, found_at, settled_at = Track(), 0.0, math.inf, math.inf
        for look in range(1, max(marks) + 1):
            position += effect * step + draw.gauss(0, math.sqrt(step))
            information = step * look
            track = advance(rule, track, MetricEffect(0, 0, position / information, 1 / information, math.inf))
            if track.low > 0 or track.high < 0:
                found_at, settled_at = look, min(settled_at, look)
                break
            if -rule.minimum_effect < track.low and track.high < rule.minimum_effect:
                settled_at = min(settled_at, look)
        for index, mark in enumerate(marks):
            found[index] += found_at <= mark
            settled[index] += settled_at <= mark
    return [Chance(share, f / paths, s / paths) for share, f, s in zip(shares, found, settled, strict=True)]


def zipf_shares(questions: int, exponent: float) -> list[float]:
    """Return the shares of the traffic of questions whose popularity falls as 1 / rank^exponent."""
    weights = [rank**-exponent for rank in range(1, questions + 1)]
    total = math.fsum(weights)
    return [each / total for each in weights]


def expected_answers(calls: float, popularity: Sequence[float], caches: int = 1) -> float:
    """Return the answers to expect from calls that are spread evenly over caches.

    Σ over questions of 1 - e^(-calls · share), for calls that come independently of each other.

    Args:
        calls: Calls of all caches together.
        popularity: Each question's share of the calls.
        caches: Arms that have a cache of their own.
    """
    return caches * math.fsum(-math.expm1(-calls / caches * share) for share in popularity)


def calls_for_answers(answers: float, popularity: Sequence[float], caches: int = 1) -> float:
    """Return the calls that bring so many answers; infinite where there are not so many questions."""
    if answers >= caches * len(popularity):
        return math.inf
    low, high = 0.0, max(1.0, answers)
    while expected_answers(high, popularity, caches) < answers:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if expected_answers(middle, popularity, caches) < answers else (low, middle)
    return high
