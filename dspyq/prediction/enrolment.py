"""The variant of a call: by the state of the program's experiment where there is one, else by the file's weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from dspyq.core.days import day_at
from dspyq.core.tolerated import tolerate
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import bucket_of_question, place
from dspyq.prediction.assignment import assign

if TYPE_CHECKING:
    from dspyq.config.programs import Program
    from dspyq.config.variants import Variant
    from dspyq.experiments.placement import UnitPlace
    from dspyq.experiments.state import ExperimentState

#: In place of a state's version: no state decided, so that none is checked.
ANY_STATE = "*"
#: The end of the scope of a shadow run's answer; that of any other is a number.
_SHADOW = "/shadow"


class Enrolment(NamedTuple):
    """A call's variant, and what follows from its experiment.

    Attributes:
        variant: The variant.
        exposure: The call as the experiment counts it; None for one that it does not count.
        scope: Part of the question's hash, for answers that no others are served; empty for none.
        seen: The version of the state that decided; empty for none known, ``ANY_STATE`` where none decides.
    """

    variant: Variant
    exposure: Exposure | None = None
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
    placed = place(state.placing, canonical_inputs.decode() if state.unit == "inputs" else unit)
    seen = str(state.version)
    if placed is None:  # it is off
        return Enrolment(assign(program, canonical_inputs if unit is None else unit), seen=seen)
    variant = program.variants.get(placed.variant)
    if variant is None:  # this host's file is older than the experiment
        tolerate("experiment_state", "unknown_variant")
        return Enrolment(assign(program, canonical_inputs if unit is None else unit), seen=seen)
    if not placed.is_counted:
        return Enrolment(variant, seen=seen)
    return Enrolment(variant, _exposure(state, placed, canonical_inputs), _scope(program, state, placed), seen)


def _exposure(state: ExperimentState, placed: UnitPlace, canonical_inputs: bytes) -> Exposure:
    return Exposure(
        program=state.program,
        epoch=state.epoch,
        arm=placed.variant,
        unit_bucket=placed.bucket,
        question_bucket=bucket_of_question(state.salt, canonical_inputs),
        cell=placed.cell,
        day=day_at(time.time()),
    )


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
