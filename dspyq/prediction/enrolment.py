"""The variant of a call: by the state of the program's experiment where there is one, else by the file's weights."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, NamedTuple

from dspyq.core.days import SECONDS_OF_DAY, day_at
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.experiments.exposure import ExposedUnit, QuestionBuckets
from dspyq.experiments.fence import ANY_STATE
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import place
from dspyq.prediction.assignment import assign

if TYPE_CHECKING:
    from dspyq.config.programs import Program
    from dspyq.config.variants import Variant
    from dspyq.experiments.placement import UnitPlace
    from dspyq.experiments.state import ExperimentState

#: The end of the scope of a shadow run's answer; that of any other is a number.
_SHADOW = "/shadow"
#: Units whose place a process keeps.
_UNITS_KEPT = 4_096
#: Longer units, such as whole inputs, are placed anew.
_MOST_CHARACTERS_KEPT = 256


class Enrolment(NamedTuple):
    """A call's variant, and what follows from its experiment.

    Attributes:
        variant: The variant.
        exposed: The unit, where the experiment counts its calls; else None.
        scope: Part of the question's hash, for answers that no others are served; empty for none.
        seen: The version of the state that decided; empty for none known, ``ANY_STATE`` where none decides.
    """

    variant: Variant
    exposed: ExposedUnit | None = None
    scope: str = ""
    seen: str = ""


def scope_of_shadow(state: ExperimentState, variant: str, task_id: str) -> str:
    """Return the scope of a shadow run's answer: no other call is ever served it, so that it warms no arm's cache."""
    return f"{state.name}/{variant}/{task_id}{_SHADOW}"


def is_of_shadow(scope: str) -> bool:
    """Return True if a scope is that of a shadow run's answer."""
    return scope.endswith(_SHADOW)


def enrol(program: Program, canonical_inputs: bytes, unit: str | None) -> Enrolment:
    """Return a call's variant.

    Args:
        program: The program, as the file states it.
        canonical_inputs: The inputs as JSON with sorted keys.
        unit: The user or session; None for a call without one.
    """
    if len(program.variants) == 1:
        return Enrolment(next(iter(program.variants.values())), seen=ANY_STATE)
    state = process_states().get(program.name)
    if state is None:
        return Enrolment(assign(program, canonical_inputs if unit is None else unit))
    found = _enroller_of(program, state).enrol(canonical_inputs.decode() if state.unit == "inputs" else unit)
    if found is not None:
        return found
    if state.status != "off":  # this host's file is older than the experiment
        tolerate("experiment_state", "unknown_variant")
    return Enrolment(assign(program, canonical_inputs if unit is None else unit), seen=str(state.version))


class _Enroller:
    """Enrols units by one state of an experiment on one day, and keeps what it found: most units come back."""

    def __init__(self, program: Program, state: ExperimentState, day: int) -> None:
        self.program = program
        self.state = state
        self.begins_at, self.ends_at = day * SECONDS_OF_DAY, (day + 1) * SECONDS_OF_DAY
        self._day = day
        self._questions = QuestionBuckets(state.salt)
        self._kept = functools.lru_cache(maxsize=_UNITS_KEPT)(self._enrol)

    def enrol(self, unit: str | None) -> Enrolment | None:
        """Return the variant of a unit's calls; None where the weights of the configuration decide."""
        if unit is not None and len(unit) > _MOST_CHARACTERS_KEPT:
            return self._enrol(unit)
        return self._kept(unit)

    def _enrol(self, unit: str | None) -> Enrolment | None:
        program, state = self.program, self.state
        placed = place(state.placing, unit)
        variant = program.variants.get(placed.variant) if placed else None
        if placed is None or variant is None:
            return None
        seen = str(state.version)
        if not placed.is_counted:
            return Enrolment(variant, seen=seen)
        exposed = ExposedUnit(
            state.program, state.epoch, placed.variant, placed.bucket, placed.cell, self._day, self._questions
        )
        return Enrolment(variant, exposed, _scope(program, state, placed), seen)


def _enroller_of(program: Program, state: ExperimentState) -> _Enroller:
    enrollers, now = _enrollers(), time.time()
    found = enrollers.get(program.name)
    is_good = found is not None and found.state is state and found.program is program
    if found is None or not is_good or not found.begins_at <= now < found.ends_at:
        found = enrollers[program.name] = _Enroller(program, state, day_at(now))
    return found


@per_runtime
def _enrollers() -> dict[str, _Enroller]:
    """Return this process's enrollers, by program; the latest of each."""
    return {}


def _scope(program: Program, state: ExperimentState, placed: UnitPlace) -> str:
    """Return the scope of an enrolled call's answer; a unit has the same draw for ever."""
    return _scope_of_draw(program, state, placed.variant, placed.cell % state.draws)


def _scope_of_draw(program: Program, state: ExperimentState, arm: str, draw: int) -> str:
    if arm in process_states().apart(program, state):
        return f"{state.name}/{arm}/{draw}"
    return f"{state.name}//{draw}" if draw else ""


def scopes(program: Program, variant: str) -> list[str]:
    """Return the scopes under which a variant's answers to one question may be kept by the latest experiment.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    if len(program.variants) == 1:
        return [""]
    process_states().refresh(program.name, at_once=True)
    state = process_states().get(program.name)
    if state is None or variant not in state.arms:
        return [""]
    own = (_scope_of_draw(program, state, variant, draw) for draw in range(state.draws))
    return list(dict.fromkeys(["", *own]))
