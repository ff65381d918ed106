"""The state of an experiment, by which every process assigns units."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import orjson

from dspyq.experiments.placement import ExperimentStatus, PlacingState

Unit = Literal["required", "inputs"]

_STATUSES = frozenset(get_args(ExperimentStatus))
_UNITS = frozenset(get_args(Unit))
#: It is a word of an exposure.
_EPOCH = re.compile(r"[0-9a-f]{1,32}")


class UnreadableState(ValueError):
    """It is not in the form that this version writes."""


@dataclass(frozen=True)
class ExperimentState:
    """The state of one program's experiment.

    Attributes:
        program: The program's name.
        name: The experiment's name.
        version: The number of changes; every change writes the next one.
        status: ``running`` assigns and counts; ``paused`` and ``stopped`` serve one variant to all; ``off`` leaves
            assignment to the file's weights.
        arms: The variants, in equal parts; the first is the control.
        coverage: The part of all units that is enrolled, 0 to 1.
        serve: The variant of units that are not enrolled.
        killed: Arms that no unit gets any more.
        unit: ``required`` or ``inputs``, as in the plan.
        draws: As in the plan.
        is_held: Whether coverage stays as it is, whatever the plan's ramp.
        step: The number of the ramp's step, from 0.
        step_at: The beginning of that step, in seconds since 1970.
        started_at: The start of the experiment, in seconds since 1970.
        epoch: A random name of this start; sums of another epoch are another experiment's.
        plan_sha256: The hash of its plan.
        slow_wait_seconds: The threshold of ``call.slow_wait``; None for none.
        tracks_served: Whether the calls that an answer was served to are counted for it: for scores, or kept rows.
        acted: Findings that a referee has acted on, so that an operator who goes on all the same is not overruled:
            ``breach <challenger> <metric>``, ``broken``, or ``lost``.
        reason: The reason of the last change.
    """

    program: str
    name: str
    version: int
    status: ExperimentStatus
    arms: tuple[str, ...]
    coverage: float
    serve: str
    epoch: str
    plan_sha256: str
    started_at: float
    step_at: float
    step: int = 0
    is_held: bool = False
    killed: tuple[str, ...] = ()
    unit: Unit = "required"
    draws: int = 1
    slow_wait_seconds: float | None = None
    tracks_served: bool = True
    acted: tuple[str, ...] = ()
    reason: str = field(default="", compare=False)

    @property
    def salt(self) -> str:
        """The salt of its units' hashes: experiments are independent of each other and of the program's weights."""
        return f"{self.program}/{self.name}"

    @functools.cached_property
    def placing(self) -> PlacingState:
        """The part of it that places units."""
        return PlacingState(self.salt, self.status, self.arms, self.coverage, self.serve, frozenset(self.killed))

    @property
    def control(self) -> str:
        """The arm that the others are compared with."""
        return self.arms[0]

    def queue_of(self, arm: str) -> str:
        """Return the name of an arm's queue."""
        return f"{self.program}.{arm}"

    def changed(self, **changes: Any) -> ExperimentState:
        """Return the next version of the state."""
        return replace(self, version=self.version + 1, **changes)

    def dump(self) -> bytes:
        """Return it as JSON, without its program and version, which its key and a field of their own state."""
        stated = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("program", "version")}
        return orjson.dumps(stated)

    @classmethod
    def read(cls, program: str, version: int, stored: bytes) -> ExperimentState:
        """Read a state; fields of a newer version are ignored.

        Raises:
            UnreadableState: If a field is missing or is not of its type.
        """
        try:
            stated = orjson.loads(stored)
            known = {name: stated[name] for name in cls.__dataclass_fields__ if name in stated}
            known |= {"arms": tuple(map(str, stated["arms"])), "killed": tuple(map(str, stated.get("killed", ())))}
            known["acted"] = tuple(map(str, stated.get("acted", ())))
            state = cls(program=program, version=version, **known)
            is_sound = state._is_sound()
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise UnreadableState(f"the state of an experiment cannot be read: {type(error).__name__}") from None
        if not is_sound:
            raise UnreadableState("the state of an experiment cannot be read: a value is out of its range")
        return state

    def _is_sound(self) -> bool:
        """Return False for what no version writes, or only one that places units in another way."""
        texts = (self.name, self.serve, self.epoch, self.plan_sha256, self.reason)
        is_placing = self.status in _STATUSES and self.unit in _UNITS and len(self.arms) > 1
        longest = self.slow_wait_seconds
        return (
            is_placing
            and all(isinstance(text, str) for text in texts)
            and _EPOCH.fullmatch(self.epoch) is not None
            and 0 <= float(self.coverage) <= 1
            and 1 <= int(self.draws) == self.draws
            and (longest is None or float(longest) >= 0)
            and min(float(self.started_at), float(self.step_at), int(self.step)) >= 0
        )
