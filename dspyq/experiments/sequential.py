"""The joined rule: a planned bound and an always-valid mixture, at any look, by the union bound.

The planned bound takes four fifths of alpha until the planned information is reached; the mixture has the rest, for
ever. Kept between looks are the running intersection of the intervals and the running maximum of the evidence, so that
no further look of the same data takes a verdict back, and what is drawn is what decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from dspyq.experiments.effects import MetricEffect
from dspyq.experiments.mixture import mixture_log_evidence, mixture_radius
from dspyq.experiments.planned import planned_information, planned_log_p, planned_radius

#: The planned bound's part of alpha.
PLANNED_SHARE = 0.8


@dataclass(frozen=True)
class SequentialRule:
    """The rule of one metric, as it was frozen when the experiment started.

    Attributes:
        minimum_effect: The least effect that matters; in the metric's unit, or a logarithm.
        information: The planned information, 1 / V; see `planned.planned_information`.
        alpha: The chance of a false finding over all looks.
    """

    minimum_effect: float
    information: float
    alpha: float = 0.05

    @classmethod
    def planned(cls, minimum_effect: float, *, alpha: float = 0.05, power: float = 0.8) -> SequentialRule:
        """Return the rule that finds ``minimum_effect`` with this power at 1.2 times the rows of a fixed test."""
        return cls(minimum_effect, planned_information(minimum_effect, alpha=alpha, power=power), alpha)

    @property
    def spread(self) -> float:
        """The mixture's: twice the least effect, for the mixture finds what is larger than planned."""
        return 2 * self.minimum_effect

    def radius(self, variance: float, *, is_plan_over: bool = False) -> float:
        """Return half the width of the interval at this look."""
        always = mixture_radius(variance, self.spread, self.alpha * (1 - PLANNED_SHARE))
        if is_plan_over:
            return always
        return min(always, planned_radius(variance, self.information, self.alpha * PLANNED_SHARE))

    def log_evidence(self, effect: float, variance: float, *, is_plan_over: bool = False) -> float:
        """Return -ln of the always-valid p-value: the least alpha at which the interval excludes no effect."""
        planned = 0.0 if is_plan_over else planned_log_p(effect, variance, self.information)
        always = -mixture_log_evidence(effect, variance, self.spread)
        return max(0.0, -(planned - math.log(PLANNED_SHARE)), -(always - math.log(1 - PLANNED_SHARE)))


class Track(NamedTuple):
    """Findings of the looks so far; the values are those of JSON, but for infinity.

    Attributes:
        low: The highest lower end of an interval so far, in the effect's unit.
        high: The lowest upper end so far. Below ``low`` the effect has changed meanwhile.
        log_evidence: The largest -ln p so far: p = exp(-log_evidence) is a p-value at any time.
        is_plan_over: True once a look had more than the planned information; the planned bound stays off then.
        looks: Looks that counted.
    """

    low: float = -math.inf
    high: float = math.inf
    log_evidence: float = 0.0
    is_plan_over: bool = False
    looks: int = 0

    @property
    def p_value(self) -> float:
        """The always-valid p-value of no effect."""
        return math.exp(-self.log_evidence)

    @property
    def drifts(self) -> bool:
        """True where no constant effect is in all intervals."""
        return self.low > self.high


def advance(rule: SequentialRule, track: Track, effect: MetricEffect) -> Track:
    """Return the track after one more look. Only looks count that `burn_in.unripe` has nothing against."""
    if not 0 < effect.variance < math.inf:
        return track
    is_plan_over = track.is_plan_over or 1 / effect.variance > rule.information
    radius = rule.radius(effect.variance, is_plan_over=is_plan_over)
    evidence = rule.log_evidence(effect.value, effect.variance, is_plan_over=is_plan_over)
    return Track(
        low=max(track.low, effect.value - radius),
        high=min(track.high, effect.value + radius),
        log_evidence=max(track.log_evidence, evidence),
        is_plan_over=is_plan_over,
        looks=track.looks + 1,
    )
