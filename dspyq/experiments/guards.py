"""Guards: a metric that must not become worse by more than a margin.

A breach is one-sided evidence that it has, at any look. A win needs the opposite too: an interval that leaves out any
harm beyond the margin (non-inferiority). All guards have to pass for that, so no correction for their number is due
(Schultzberg, Ankargren, Frånberg, "Risk-aware product decisions in A/B tests with multiple metrics", 2024,
arXiv:2402.11609, proposition 4.1). A breach of any one ends the experiment, so its level is divided by their number
(Bonferroni).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from dspyq.experiments.burn_in import LEAST_OUTCOMES, LEAST_ROWS, row_count, unripe
from dspyq.experiments.effects import MetricEffect, metric_effect
from dspyq.experiments.jackknife import Scale
from dspyq.experiments.mixture import one_sided_log_evidence
from dspyq.experiments.sequential import SequentialRule, Track, advance
from dspyq.experiments.sums import ArmSums

#: The chance that all guards together ever end an experiment in which none is breached.
BREACH_ALPHA = 0.01

#: Spreads of the mixtures, in margins: the first finds harm a little beyond the margin, the second an arm that fails.
_SPREADS = (2, 16)

Worse = Literal["higher", "lower"]


@dataclass(frozen=True)
class GuardRule:
    """A guard, as it was frozen when the experiment started.

    Attributes:
        margin: The harm that is put up with; above 0. In the metric's unit, or a share of the control's mean: 0.1 is
            10 %.
        worse: The direction of harm.
        is_relative: True for a share.
        is_yes_or_no: True where every row's value is 0 or 1.
        alpha: The chance of a false breach, over all looks: `BREACH_ALPHA` over the number of guards.
    """

    margin: float
    worse: Worse = "higher"
    is_relative: bool = False
    is_yes_or_no: bool = False
    alpha: float = BREACH_ALPHA

    def __post_init__(self) -> None:
        """Refuse a margin that no harm can be compared with."""
        if not 0 < self.margin < (1 if self.is_relative and self.worse == "lower" else math.inf):
            raise ValueError("margin: state one above 0, and below 100 % of a metric that must not become lower")

    @property
    def scale(self) -> Scale:
        """The scale of its effect."""
        return "logarithm" if self.is_relative else "difference"

    @property
    def harm(self) -> float:
        """The margin on that scale, as a harm above 0."""
        if not self.is_relative:
            return self.margin
        return math.log1p(self.margin) if self.worse == "higher" else -math.log1p(-self.margin)

    @property
    def interval_rule(self) -> SequentialRule:
        """The rule of its interval: planned to leave the margin out where there is no harm."""
        return SequentialRule.planned(self.harm)


class GuardTrack(NamedTuple):
    """Findings of the looks so far.

    Attributes:
        interval: Of the harm: above 0 is worse, whatever the metric's direction.
        log_evidence: The largest ln of the e-value so far against "no worse than the margin".
    """

    interval: Track = Track()
    log_evidence: float = 0.0

    def is_breached(self, rule: GuardRule) -> bool:
        """Return True if the metric is worse by more than the margin (Ville's inequality: e ≥ 1 / alpha)."""
        return self.log_evidence >= math.log(1 / rule.alpha)

    def is_sound(self, rule: GuardRule) -> bool:
        """Return True if any harm beyond the margin is left out."""
        return self.interval.high < rule.harm


def advance_guard(rule: GuardRule, track: GuardTrack, control: ArmSums, challenger: ArmSums) -> GuardTrack:
    """Return the track after one more look. A breach needs fewer rows than a verdict: harm is ended early."""
    effect = metric_effect(control, challenger, rule.scale)
    if effect is None:
        return track
    harm = effect._replace(value=effect.value if rule.worse == "higher" else -effect.value)
    too_early = unripe(control, challenger, effect, is_yes_or_no=rule.is_yes_or_no)
    interval = track.interval
    if too_early is None:
        interval = advance(rule.interval_rule, interval, harm)
    elif too_early == "few outcomes" and not rule.is_relative:
        variance = max(harm.variance, _variance_of_few(control, challenger))
        interval = advance(rule.interval_rule, interval, harm._replace(variance=variance))
    evidence = 0.0
    if _has_events(rule, control, challenger):
        variance = max(harm.variance, _least_variance(rule, effect, control, challenger))
        evidence = _log_evidence(harm.value - rule.harm, variance, rule.harm)
    return GuardTrack(interval, max(track.log_evidence, evidence))


def _log_evidence(excess: float, variance: float, margin: float) -> float:
    """Return ln of the mean of the e-values of all spreads; the mean of e-values is one."""
    each = [one_sided_log_evidence(excess, variance, spread * margin) for spread in _SPREADS]
    largest = max(each)
    return largest + math.log(math.fsum(math.exp(one - largest) for one in each) / len(each))


def _has_events(rule: GuardRule, control: ArmSums, challenger: ArmSums) -> bool:
    if rule.is_yes_or_no:
        yes = math.fsum(control.by_question.numerators) + math.fsum(challenger.by_question.numerators)
        return min(yes, row_count(control) + row_count(challenger) - yes) >= LEAST_OUTCOMES
    return min(row_count(control), row_count(challenger)) >= LEAST_ROWS


def _variance_of_few(*arms: ArmSums) -> float:
    """Return the variance of a yes or no, of which each arm has at least ten of the rarer outcome, or as if it had.

    What never fails has no spread, and would never be proven harmless: an interval as wide as that of ten failures is
    wider than that of fewer.
    """
    variance = 0.0
    for arm in arms:
        rows, yes = row_count(arm), math.fsum(arm.by_question.numerators)
        rate = min(0.5, max(min(yes, rows - yes), LEAST_OUTCOMES) / rows)
        variance += rate * (1 - rate) / rows
    return variance


def _least_variance(rule: GuardRule, effect: MetricEffect, control: ArmSums, challenger: ArmSums) -> float:
    """Return the variance of a yes or no with one more row of each outcome in each arm; 0 for other metrics.

    An arm in which every call fails has no spread, and must be found all the same. The added rows are those of Agresti
    and Caffo, The American Statistician 54, 2000.
    """
    if not rule.is_yes_or_no:
        return 0.0
    variance = 0.0
    for arm, mean in ((control, effect.control), (challenger, effect.challenger)):
        rows = row_count(arm) + 2
        rate = (math.fsum(arm.by_question.numerators) + 1) / rows
        variance += rate * (1 - rate) / rows / (mean * mean if rule.is_relative else 1)
    return variance
