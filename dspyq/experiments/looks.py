"""Looks at an experiment's sums: effects, intervals, evidence and a verdict for each challenger.

Pure functions of the sums, the frozen plan, and what the looks before have found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dspyq.core.days import SECONDS_OF_DAY
from dspyq.experiments.burn_in import row_count, unripe
from dspyq.experiments.effects import metric_effect
from dspyq.experiments.guards import GuardRule, GuardTrack, advance_guard
from dspyq.experiments.look import ChallengerFindings, GuardFinding, Look, MetricFinding
from dspyq.experiments.metrics import (
    estimands,
    guard_rules,
    is_yes_or_no,
    primary_effect,
    secondary_rule,
    worse_direction,
)
from dspyq.experiments.multiplicity import holm
from dspyq.experiments.sample_ratio import sample_ratio_log_evidence
from dspyq.experiments.sequential import SequentialRule, Track, advance
from dspyq.experiments.verdict import ExperimentVerdict, Findings, Soundness, judge

if TYPE_CHECKING:
    from dspyq.experiments.effects import MetricEffect
    from dspyq.experiments.jackknife import Scale
    from dspyq.experiments.state import ExperimentState
    from dspyq.experiments.sums import ArmSums
    from dspyq.experiments.sums_reader import ArmReading


@dataclass(frozen=True)
class ChallengerTracks:
    """Findings of the looks so far about one challenger.

    Attributes:
        metrics: Tracks of the effects, by metric; challenger - control, above 0 is more.
        guards: Tracks of the guards, by metric.
        information: The planned information of the primary metric, once it is frozen; None before.
    """

    metrics: dict[str, Track] = field(default_factory=dict)
    guards: dict[str, GuardTrack] = field(default_factory=dict)
    information: float | None = None


@dataclass(frozen=True)
class Tracks:
    """Findings of all looks so far.

    Attributes:
        number: The number of looks.
        ratio_log_evidence: The largest ln of the e-value so far against the sample ratio.
        challengers: By name.
        counted: Units, calls and answers at the latest look, by arm.
        has_lost_counts: Whether they were ever fewer than at the look before.
    """

    number: int = 0
    ratio_log_evidence: float = 0.0
    challengers: dict[str, ChallengerTracks] = field(default_factory=dict)
    counted: dict[str, tuple[int, ...]] = field(default_factory=dict)
    has_lost_counts: bool = False


class LookedAt(NamedTuple):
    """A look, and the tracks after it."""

    look: Look
    tracks: Tracks


def look_at(
    state: ExperimentState, table: Mapping[str, Any], readings: Mapping[str, ArmReading], before: Tracks, now: float
) -> LookedAt:
    """Return the look at these sums.

    Args:
        state: The experiment.
        table: Its frozen table.
        readings: The sums, by arm.
        before: Findings of the looks before.
        now: Seconds since 1970.
    """
    ratio = max(before.ratio_log_evidence, _ratio_log_evidence(state, readings))
    units = {arm: reading.units for arm, reading in readings.items()}
    calls, answers = _rows(readings, "call.failed"), _rows(readings, "answer.cost")
    counted: dict[str, tuple[int, ...]] = {arm: (units[arm], calls[arm], answers[arm]) for arm in readings}
    has_lost_counts = before.has_lost_counts or _is_less(counted, before.counted)
    days = (now - state.started_at) / SECONDS_OF_DAY
    challengers = state.arms[1:]
    looks = {
        arm: _Challenger(table, readings, state.control, arm, before.challengers.get(arm, ChallengerTracks()))
        for arm in challengers
    }
    adjusted = holm([looks[arm].primary_track.p_value for arm in challengers])
    findings = {
        arm: looks[arm].findings(p_value, Soundness(ratio, has_lost_counts), days=days)
        for arm, p_value in zip(challengers, adjusted, strict=True)
    }
    look = Look(
        number=before.number + 1,
        at=now,
        version=state.version,
        status=state.status,
        coverage=state.coverage,
        days=days,
        ratio_log_evidence=ratio,
        units=units,
        calls=calls,
        answers=answers,
        dropped={arm: reading.dropped for arm, reading in readings.items()},
        challengers=findings,
        has_lost_counts=has_lost_counts,
        unscored={arm: _by_name(reading.unscored) for arm, reading in readings.items() if reading.unscored},
    )
    tracks = {arm: looks[arm].tracks for arm in challengers}
    return LookedAt(look, Tracks(look.number, ratio, tracks, counted, has_lost_counts))


def _by_name(unscored: Mapping[tuple[str, str], int]) -> dict[str, int]:
    return {f"{score} {reason}": number for (score, reason), number in sorted(unscored.items())}


def _is_less(counted: Mapping[str, tuple[int, ...]], before: Mapping[str, tuple[int, ...]]) -> bool:
    """Return True if an arm has fewer units, calls or answers than before: counts only grow, so some were lost."""
    pairs = ((counted.get(arm, (0,) * len(most)), most) for arm, most in before.items())
    return any(now < then for arm, most in pairs for now, then in zip(arm, most, strict=True))


def _ratio_log_evidence(state: ExperimentState, readings: Mapping[str, ArmReading]) -> float:
    """Return ln of the e-value against equal parts, of the arms that still get units."""
    counts = [readings[arm].units for arm in state.arms if arm not in state.killed]
    return sample_ratio_log_evidence(counts, [1 / len(counts)] * len(counts))


def _rows(readings: Mapping[str, ArmReading], metric: str) -> dict[str, int]:
    return {arm: round(row_count(reading.metrics[metric])) for arm, reading in readings.items()}


class _Effect(NamedTuple):
    """A metric at this look.

    Attributes:
        scale: Of the effect.
        effect: The effect; None where it cannot be estimated.
        too_early: The reason why it does not count; None where it does.
    """

    scale: Scale
    effect: MetricEffect | None
    too_early: str | None


class _Challenger:
    """One challenger at one look."""

    def __init__(
        self,
        table: Mapping[str, Any],
        readings: Mapping[str, ArmReading],
        control: str,
        arm: str,
        before: ChallengerTracks,
    ) -> None:
        self._table = table
        self._primary: str = table["primary"]
        self._sides = readings[control].metrics, readings[arm].metrics
        self._effects = {metric: self._effect_of(metric) for metric in self._sides[0]}
        self._guards = guard_rules(table)
        self._sign = -1.0 if worse_direction(self._primary) == "higher" else 1.0
        self._minimum_effect = primary_effect(table)[1]
        information = before.information or self._planned_information(readings)
        self.tracks = ChallengerTracks(
            {metric: self._advanced(metric, before, information) for metric in self._effects},
            {metric: self._advanced_guard(metric, rule, before) for metric, rule in self._guards.items()},
            information,
        )

    @property
    def primary_track(self) -> Track:
        """The primary metric's track; challenger - control, above 0 is more."""
        return self.tracks.metrics[self._primary]

    def findings(self, p_value: float, soundness: Soundness, *, days: float) -> ChallengerFindings:
        """Return the findings.

        Args:
            p_value: The primary metric's, adjusted for the number of challengers.
            soundness: Of the counts.
            days: Days since the start.
        """
        verdict = self._verdict(p_value, soundness, days=days)
        effect = self._effects[self._primary].effect
        return ChallengerFindings(
            outcome=verdict.outcome,
            because=verdict.because,
            p_value=p_value,
            minimum_effect=self._minimum_effect,
            information=self.tracks.information,
            information_now=1 / effect.variance if effect and 0 < effect.variance < math.inf else 0.0,
            metrics={metric: self._metric(metric) for metric in self._effects},
        )

    def _effect_of(self, metric: str) -> _Effect:
        scale = self._scale_of(metric)
        control, challenger = (side[metric] for side in self._sides)
        effect = metric_effect(control, challenger, scale)
        if effect is None:
            return _Effect(scale, None, "no rows" if not _have_rows(control, challenger) else "a mean is 0")
        too_early = unripe(
            control, challenger, effect, is_yes_or_no=is_yes_or_no(metric, self._table, *self._arms(metric))
        )
        return _Effect(scale, effect, too_early)

    def _arms(self, metric: str) -> tuple[ArmSums, ArmSums]:
        return self._sides[0][metric], self._sides[1][metric]

    def _scale_of(self, metric: str) -> Scale:
        both = estimands(self._primary, self._table) or (self._primary,)
        if metric in both:
            return primary_effect(self._table)[0]
        guard = guard_rules(self._table).get(metric)
        return guard.scale if guard else secondary_rule(metric, self._table)[0]

    def _planned_information(self, readings: Mapping[str, ArmReading]) -> float | None:
        """Return the planned information of the primary metric; None until it can be frozen.

        It follows from the least effect, or, where the plan states a number of calls, from what calls have brought when
        the first look counts: known before any effect decides.
        """
        calls = self._table["planned_calls"]
        if calls is None:
            return SequentialRule.planned(self._minimum_effect, alpha=float(self._table["alpha"])).information
        found = self._effects[self._primary]
        if found.too_early is not None or found.effect is None:
            return None
        so_far = sum(_rows(readings, "call.failed").values())
        return calls / so_far / found.effect.variance if so_far else None

    def _rule(self, metric: str, information: float | None) -> SequentialRule:
        both = estimands(self._primary, self._table) or (self._primary,)
        alpha = float(self._table["alpha"])
        if metric == self._primary:
            return SequentialRule(self._minimum_effect, information or 0.0, alpha)
        if metric in both:
            return SequentialRule.planned(self._minimum_effect, alpha=alpha)
        guard = self._guards.get(metric)
        return guard.interval_rule if guard else secondary_rule(metric, self._table)[1]

    def _advanced(self, metric: str, before: ChallengerTracks, information: float | None) -> Track:
        track = before.metrics.get(metric, Track())
        found = self._effects[metric]
        if found.effect is None or found.too_early is not None:
            return track
        return advance(self._rule(metric, information), track, found.effect)

    def _advanced_guard(self, metric: str, rule: GuardRule, before: ChallengerTracks) -> GuardTrack:
        rule = self._guard_rule(metric, rule)
        return advance_guard(rule, before.guards.get(metric, GuardTrack()), *self._arms(metric))

    def _guard_rule(self, metric: str, rule: GuardRule) -> GuardRule:
        return replace(rule, is_yes_or_no=is_yes_or_no(metric, self._table, *self._arms(metric)))

    def _verdict(self, p_value: float, soundness: Soundness, *, days: float) -> ExperimentVerdict:
        by_answer, by_traffic = self._estimates()
        found = Findings(
            rule=self._rule(self._primary, self.tracks.information),
            primary=_turned(self.primary_track, self._sign),
            by_answer=by_answer,
            by_traffic=by_traffic,
            guards={metric: (rule, self.tracks.guards[metric]) for metric, rule in self._guards.items()},
            soundness=soundness,
            days=days,
            at_least_days=float(self._table["at_least_days"]),
        )
        verdict = judge(found)
        if verdict.outcome in ("wins", "loses") and p_value > float(self._table["alpha"]):
            return ExperimentVerdict("going on", "the interval leaves out 0, but not yet for so many challengers")
        too_early = self._effects[self._primary].too_early
        if verdict.outcome == "going on" and not self.primary_track.looks and too_early:
            return ExperimentVerdict("going on", f"too early: {too_early}")
        return verdict

    def _estimates(self) -> tuple[float | None, float | None]:
        both = estimands(self._primary, self._table)
        found = [self._effects[metric].effect for metric in both] if both else [None, None]
        values = [None if each is None else self._sign * each.value for each in found]
        return values[0], values[1]

    def _metric(self, metric: str) -> MetricFinding:
        found, track = self._effects[metric], self._shown_track(metric)
        control, challenger = self._arms(metric)
        effect = found.effect
        return MetricFinding(
            control=_mean(control),
            challenger=_mean(challenger),
            scale=found.scale,
            value=effect.value if effect else None,
            low=track.low if math.isfinite(track.low) else None,
            high=track.high if math.isfinite(track.high) else None,
            log_evidence=track.log_evidence,
            effective_clusters=effect.effective_clusters if effect else 0.0,
            control_rows=round(row_count(control)),
            challenger_rows=round(row_count(challenger)),
            higher_is_worse=worse_direction(metric) == "higher",
            too_early=found.too_early,
            is_primary=metric == self._primary,
            guard=self._guard(metric),
        )

    def _shown_track(self, metric: str) -> Track:
        """Return the track that decides: a guard's is of the harm, on the scale of its margin."""
        track = self.tracks.metrics[metric]
        guard = self._guards.get(metric)
        if guard is None or metric == self._primary or guard.scale != self._effects[metric].scale:
            return track
        interval = _turned(self.tracks.guards[metric].interval, 1.0 if guard.worse == "higher" else -1.0)
        return track._replace(low=interval.low, high=interval.high)

    def _guard(self, metric: str) -> GuardFinding | None:
        rule = self._guards.get(metric)
        if rule is None:
            return None
        track = self.tracks.guards[metric]
        return GuardFinding(
            margin=rule.margin,
            is_relative=rule.is_relative,
            log_evidence=track.log_evidence,
            log_limit=math.log(1 / rule.alpha),
            is_breached=track.is_breached(rule),
            is_sound=track.is_sound(rule),
        )


def _have_rows(*arms: ArmSums) -> bool:
    return all(row_count(arm) for arm in arms)


def _mean(arm: ArmSums) -> float | None:
    rows = row_count(arm)
    return math.fsum(arm.by_question.numerators) / rows if rows else None


def _turned(track: Track, sign: float) -> Track:
    """Return the track of the effect times 1 or -1."""
    return track if sign > 0 else track._replace(low=-track.high, high=-track.low)
