"""Acts of a referee: a pure function of the experiment's state, its frozen plan and the latest look."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from dspyq.experiments.look import Look
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE
from dspyq.experiments.state import ExperimentState

ActKind = Literal["ramp", "kill", "roll back", "pause", "promote"]
_SECONDS_OF_HOUR = 3_600
_BROKEN = ("broken", "lost")


class Discovery(NamedTuple):
    """A finding of the looks that is reported, and may be acted on.

    Attributes:
        name: ``breach <challenger> <metric>``, ``broken``, ``lost``, ``wins <challenger>``: acted on once, and reported
            once.
        event: The event of the log.
        fields: Its details.
        reason: The same in words, for the experiment's log.
    """

    name: str
    event: str
    fields: dict[str, Any]
    reason: str


class Act(NamedTuple):
    """A change that a referee makes.

    Attributes:
        kind: The kind.
        changes: The changed fields of the state.
        detail: The new value, for the experiment's log.
        reason: The reason, for the experiment's log.
    """

    kind: ActKind
    changes: dict[str, Any]
    detail: str
    reason: str


def findings(state: ExperimentState, look: Look) -> Iterator[Discovery]:
    """Yield what a look has found: harm, then a broken sample ratio, then wins; nothing else where counts were lost."""
    if look.has_lost_counts:
        yield Discovery(
            "lost",
            "experiment_broken",
            {"counts": "lost", "calls": " ".join(f"{arm}={n}" for arm, n in look.calls.items())},
            "counts were lost: an arm has fewer than at an earlier look",
        )
        return
    live = {name: each for name, each in look.challengers.items() if name not in state.killed}
    for arm, found in live.items():
        for metric in found.breached:
            guard = found.metrics[metric].guard
            assert guard is not None  # noqa: S101 - it is breached
            margin = f"{guard.margin:.0%}" if guard.is_relative else f"{guard.margin:g}"
            evidence = _odds(guard.log_evidence)
            yield Discovery(
                f"breach {arm} {metric}",
                "experiment_breach",
                {"arm": arm, "metric": metric, "margin": margin, "evidence": evidence},
                f"{metric} of {arm} is worse by more than {margin}: {evidence} to 1",
            )
    if look.ratio_log_evidence >= BROKEN_LOG_EVIDENCE:
        evidence = _odds(look.ratio_log_evidence)
        yield Discovery(
            "broken",
            "experiment_broken",
            {"evidence": evidence, "units": " ".join(f"{arm}={n}" for arm, n in look.units.items())},
            f"the arms do not have their shares of the units: {evidence} to 1",
        )
    for arm, found in sorted(live.items(), key=lambda each: each[1].p_value):
        if found.outcome == "wins":
            yield Discovery(f"wins {arm}", "experiment_wins", {"arm": arm}, f"{arm} wins: {found.because}")


def act_of(
    state: ExperimentState, table: Mapping[str, Any], found: list[Discovery], unfit: Mapping[str, str], now: float
) -> Act | None:
    """Return the act that is due; None for none. One at a time: harm first, and a ramp last.

    Args:
        state: The experiment's state.
        table: Its frozen table.
        found: Findings of the latest look.
        unfit: Arms that are none, as their calls are refused, with the reason.
        now: Seconds since 1970.
    """
    if state.status != "running":
        return None
    return (
        _after_breach(state, table, found)
        or _after_break(state, found)
        or _without_arm(state, unfit)
        or _promotion(table, found)
        or _next_step(state, table, found, now)
    )


def _after_breach(state: ExperimentState, table: Mapping[str, Any], found: list[Discovery]) -> Act | None:
    for each in found:
        if not each.name.startswith("breach ") or each.name in state.acted:
            continue
        acted = (*state.acted, each.name)
        if table["on_breach"] == "rollback":
            arm = each.fields["arm"]
            killed = tuple(dict.fromkeys((*state.killed, arm)))
            if set(state.arms[1:]) - set(killed):  # the other challengers go on
                return Act("kill", {"killed": killed, "acted": acted}, arm, each.reason)
            changes = {"status": "stopped", "serve": state.control, "killed": killed, "acted": acted}
            return Act("roll back", changes, state.control, each.reason)
        if table["on_breach"] == "pause":
            return Act("pause", {"status": "paused", "acted": acted}, "", each.reason)
    return None


def _after_break(state: ExperimentState, found: list[Discovery]) -> Act | None:
    for each in found:
        if each.name in _BROKEN and each.name not in state.acted:
            return Act("pause", {"status": "paused", "acted": (*state.acted, each.name)}, "", each.reason)
    return None


def _without_arm(state: ExperimentState, unfit: Mapping[str, str]) -> Act | None:
    for arm, reason in unfit.items():
        if arm not in state.killed:
            return Act("pause", {"status": "paused"}, "", f"{arm} is no arm: {reason}")
    return None


def _promotion(table: Mapping[str, Any], found: list[Discovery]) -> Act | None:
    if table["on_win"] != "promote" or _is_harmful(found):
        return None
    for each in found:
        if each.name.startswith("wins "):
            arm = each.fields["arm"]
            return Act("promote", {"status": "stopped", "serve": arm}, arm, each.reason)
    return None


def _next_step(state: ExperimentState, table: Mapping[str, Any], found: list[Discovery], now: float) -> Act | None:
    ramp = table["ramp"]
    if state.is_held or _is_harmful(found) or state.step + 1 >= len(ramp):
        return None
    due_at = state.step_at + ramp[state.step]["hours"] * _SECONDS_OF_HOUR
    if now < due_at:
        return None
    # Never back: an operator may have gone further before the plan was followed again.
    coverage = max(state.coverage, ramp[state.step + 1]["coverage"])
    changes = {"coverage": coverage, "step": state.step + 1, "step_at": now}
    return Act("ramp", changes, f"{coverage:g}", "due by the plan")


def _is_harmful(found: list[Discovery]) -> bool:
    return any(not each.name.startswith("wins ") for each in found)


def _odds(log_evidence: float) -> int:
    """Return evidence as the larger part of "x to 1"."""
    return round(math.exp(min(log_evidence, 30.0)))
