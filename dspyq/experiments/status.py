"""The standing of an experiment: its state, a look at its sums as they are now, and what a verdict still needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dspyq.core.days import SECONDS_OF_DAY
from dspyq.errors import ExperimentRefused, RedisUnavailable
from dspyq.experiments.administration import StartedPlan, read_plan, read_state
from dspyq.experiments.feedback import read_refusals
from dspyq.experiments.look import ChallengerFindings, Look
from dspyq.experiments.looks_store import read_looks, read_points, write_look
from dspyq.experiments.referee import read_time, take_look
from dspyq.experiments.shadows import ShadowReading, read_shadows
from dspyq.experiments.state import ExperimentState
from dspyq.store.clients import money_client
from dspyq.store.users import is_watcher

_SECONDS_OF_HOUR = 3_600.0
#: A rate needs some time; before that there is none.
_LEAST_SECONDS_OF_RATE = 60.0


@dataclass(frozen=True)
class StillNeeded:
    """The rest of an experiment's plan.

    Attributes:
        share: The part of the planned information that there is; above 1 once the plan is over.
        calls: Further counted calls of all arms until the plan is over; 0 once it is.
        days: Days until then at the present rate; None where there is no rate.
    """

    share: float
    calls: int
    days: float | None


@dataclass(frozen=True)
class NextStep:
    """The next step of the ramp.

    Attributes:
        coverage: The part of all units from then on.
        seconds: Seconds until then; 0 where it is due.
    """

    coverage: float
    seconds: float


@dataclass(frozen=True)
class Standing:
    """The standing of an experiment.

    Attributes:
        state: Its state.
        plan: Its frozen plan.
        at: The time of this standing, in seconds since 1970.
        look: A look at its sums now.
        looked_at: The time of the referee's or an operator's look before; None for none.
        calls_per_day: Counted calls a day, of the last day; None where that is not known yet.
        needed: By challenger; only those whose planned information is known.
        next_step: The next step of the ramp; None for none, or where it is held or does not run.
        shadows: The shadow runs of each challenger that the plan gives some.
        refusals: What was not counted since the program's first experiment, by reason: refused feedback (``closed``,
            ``unknown``, ``range``, ``late``), and ``damaged`` keys.
    """

    state: ExperimentState
    plan: StartedPlan
    at: float
    look: Look
    looked_at: float | None
    calls_per_day: float | None
    needed: dict[str, StillNeeded]
    next_step: NextStep | None
    shadows: dict[str, ShadowReading]
    refusals: dict[str, int]


def status(program: str) -> Standing | None:
    """Return the standing of a program's experiment; None if none was ever started.

    The look counts, as those of a referee do: while the experiment is under way it is kept. The user ``watcher`` of
    ``dspyq users`` may not keep it.

    Raises:
        ExperimentRefused: If its state or its plan cannot be read.
        RedisUnavailable: If Redis does not answer.
    """
    state, plan = read_state(program), read_plan(program)
    if state is None:
        return None
    if plan is None:
        raise ExperimentRefused(f"the plan of {state.name} is gone; start another: dspyq experiment start {program}")
    stored, now = read_looks(state), read_time()
    looked = take_look(state, plan.table, now, stored=stored)
    if state.status in ("running", "paused") and not is_watcher(money_client()):
        with suppress(RedisUnavailable):  # another user of Redis that may only read sees it all the same
            write_look(state, looked, stored.notes)  # where a referee's came first, that is as good
    rate = _calls_per_day(state, looked.look, read_points(state))
    return Standing(
        state=state,
        plan=plan,
        at=now,
        look=looked.look,
        looked_at=stored.latest.at if stored.latest else None,
        calls_per_day=rate,
        needed={
            arm: needed
            for arm, found in looked.look.challengers.items()
            if (needed := _needed(looked.look, found, rate)) is not None
        },
        next_step=_next_step(state, plan.table, now),
        shadows=read_shadows(state, plan.table),
        refusals=read_refusals(program),
    )


def _calls_per_day(state: ExperimentState, look: Look, points: Sequence[Look]) -> float | None:
    """Return the rate since the first look of the last day, or since the start."""
    recent = next((point for point in points if point.at >= look.at - SECONDS_OF_DAY), None)
    calls_before, began_at = 0, state.started_at
    if recent is not None and look.at - state.started_at > SECONDS_OF_DAY:
        calls_before, began_at = sum(recent.calls.values()), recent.at
    passed = look.at - began_at
    if passed < _LEAST_SECONDS_OF_RATE:
        return None
    return max(0, sum(look.calls.values()) - calls_before) / passed * SECONDS_OF_DAY


def _needed(look: Look, found: ChallengerFindings, calls_per_day: float | None) -> StillNeeded | None:
    if not found.information or not found.information_now:
        return None
    share = found.information_now / found.information
    calls = max(0, round(sum(look.calls.values()) * (1 / share - 1)))
    return StillNeeded(share, calls, calls / calls_per_day if calls_per_day else None)


def _next_step(state: ExperimentState, table: Mapping[str, Any], now: float) -> NextStep | None:
    ramp = table["ramp"]
    if state.status != "running" or state.is_held or state.step + 1 >= len(ramp):
        return None
    due_at = state.step_at + ramp[state.step]["hours"] * _SECONDS_OF_HOUR
    return NextStep(max(state.coverage, ramp[state.step + 1]["coverage"]), max(0.0, due_at - now))
