"""The verdict on a challenger, from what the looks have found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from dspyq.experiments.guards import GuardRule, GuardTrack
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE
from dspyq.experiments.sequential import SequentialRule, Track

Outcome = Literal["broken", "breach", "drifts", "split", "wins", "loses", "no difference that matters", "going on"]


class ExperimentVerdict(NamedTuple):
    """A verdict.

    Attributes:
        outcome: ``split`` where the challenger is better by answer and worse by traffic, or the other way round.
        because: What it rests on, or what is still to come; one line.
    """

    outcome: Outcome
    because: str


class Soundness(NamedTuple):
    """The state of the counts that a verdict rests on.

    Attributes:
        ratio_log_evidence: The largest ln of the e-value so far against the sample ratio.
        has_lost_counts: Whether an arm ever had more counts than later.
    """

    ratio_log_evidence: float = 0.0
    has_lost_counts: bool = False


@dataclass(frozen=True)
class Findings:
    """All that a verdict rests on.

    Attributes:
        rule: The primary metric's.
        primary: The primary metric's track; above 0 is better.
        by_answer: The primary's effect at this look, each computed answer once; None where it has no such form.
        by_traffic: The same, weighed by the calls that were served; None where it has no such form.
        guards: By metric.
        soundness: Of the counts.
        days: Days since the start.
        at_least_days: No win before.
    """

    rule: SequentialRule
    primary: Track
    by_answer: float | None = None
    by_traffic: float | None = None
    guards: Mapping[str, tuple[GuardRule, GuardTrack]] = field(default_factory=dict)
    soundness: Soundness = field(default_factory=Soundness)
    days: float = 0.0
    at_least_days: float = 0.0


def judge(found: Findings) -> ExperimentVerdict:
    """Return the verdict; harm comes first, and a win last."""
    return _fault(found) or _finding(found)


def _fault(found: Findings) -> ExperimentVerdict | None:
    if found.soundness.has_lost_counts:
        return ExperimentVerdict("broken", "counts were lost: an arm has fewer than at an earlier look")
    if found.soundness.ratio_log_evidence >= BROKEN_LOG_EVIDENCE:
        return ExperimentVerdict("broken", "the arms do not have their shares of the units")
    if breached := [name for name, (rule, track) in found.guards.items() if track.is_breached(rule)]:
        return ExperimentVerdict("breach", f"worse by more than the margin: {', '.join(breached)}")
    if found.primary.drifts:
        return ExperimentVerdict("drifts", "the effect has changed: no one effect is in all intervals")
    return None


def _finding(found: Findings) -> ExperimentVerdict:
    low, high, least = found.primary.low, found.primary.high, found.rule.minimum_effect
    if (low > 0 or high < 0) and _is_split(found):
        return ExperimentVerdict("split", "better by answer and worse by traffic, or the other way round")
    if high < 0:
        return ExperimentVerdict("loses", "the primary metric's interval is below 0")
    if low > 0:
        return _win(found)
    if -least < low and high < least:
        return ExperimentVerdict("no difference that matters", "the interval is within the least effect that matters")
    return ExperimentVerdict("going on", "the primary metric's interval holds 0")


def _is_split(found: Findings) -> bool:
    return found.by_answer is not None and found.by_traffic is not None and found.by_answer * found.by_traffic < 0


def _win(found: Findings) -> ExperimentVerdict:
    if open_guards := [name for name, (rule, track) in found.guards.items() if not track.is_sound(rule)]:
        return ExperimentVerdict("going on", f"better, but harm is not yet ruled out: {', '.join(open_guards)}")
    if found.days < found.at_least_days:
        return ExperimentVerdict("going on", f"better, and wins if it stays so for {found.at_least_days:g} days")
    return ExperimentVerdict("wins", "the primary metric's interval is above 0, and no guard is worse by its margin")
