"""The known states of experiments: each is read from a refused claim, or when a change is announced.

No call reads a state from Redis beforehand. Where a process has none, or an old one, the script that claims a question,
or puts the job of a call with an id of its own, refuses, and replies with the state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.experiments.state import ExperimentState, UnreadableState
from dspyq.store.clients import money_client
from dspyq.store.keys import experiment_home_key

if TYPE_CHECKING:
    from dspyq.config.programs import Program

#: The start of an announcement on the channel of invalidations, which older processes take for an unknown input hash.
ANNOUNCED = b"~"
#: Where no script checks the state, it is read again once it is older.
_FRESH_SECONDS = 1.0


class KnownStates:
    """The latest states, by program; any thread may call any method."""

    def __init__(self) -> None:
        self._states: dict[str, ExperimentState] = {}
        self._apart: dict[tuple[str, int], frozenset[str]] = {}
        self._read_at: dict[str, float] = {}

    def get(self, program: str) -> ExperimentState | None:
        """Return the state of a program's experiment; None for none, or none that is known."""
        return self._states.get(program)

    def learn(self, program: str, version: str | bytes, stored: bytes, *, instead_of: str = "") -> bool:
        """Take a state that Redis has, unless it is older than the known one; return False if it cannot be read.

        Args:
            program: The program's name.
            version: The state's version.
            stored: The state.
            instead_of: The version that Redis was asked for, and does not have; empty for none. An older state takes
                its place: Redis has lost changes, as after a failover to a replica that did not have them yet.
        """
        try:
            state = ExperimentState.read(program, int(version), stored)
        except (UnreadableState, ValueError) as error:
            tolerate("experiment_state", error)
            self.forget(program)  # no unit is placed by what an operator has replaced
            return False
        known = self._states.get(program)
        is_newer = known is None or known.version <= state.version or known.epoch != state.epoch
        if is_newer or (known is not None and str(known.version) == instead_of):
            self._states[program] = state
        return True

    def learn_announced(self, message: bytes) -> None:
        """Take a state as it is announced: ``~<program> <version> <state>``."""
        program, _, rest = message.removeprefix(ANNOUNCED).partition(b" ")
        version, _, stored = rest.partition(b" ")
        self.learn(program.decode("utf-8", "replace"), version, stored)

    def forget(self, program: str) -> None:
        """Forget a state that Redis no longer has."""
        self._states.pop(program, None)

    def refresh(self, program: str, *, at_once: bool = False) -> None:
        """Read the state, unless it was read within a second; for what no script checks.

        Args:
            program: The program's name.
            at_once: Whether to read it in any case.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        now, known = time.monotonic(), self.get(program)
        if not at_once and now - self._read_at.get(program, float("-inf")) < _FRESH_SECONDS:
            return
        found = money_client().hmget(experiment_home_key(program), "version", "state")
        version, stored = cast("list[bytes | None]", found)
        self._read_at[program] = now
        if version is None or stored is None:
            self.forget(program)
        else:
            self.learn(program, version, stored, instead_of=str(known.version) if known else "")

    def apart(self, program: Program, state: ExperimentState) -> frozenset[str]:
        """Return the arms whose enrolled units have answers of their own.

        They are those whose fingerprint serves others too: the control's, that of all who are not enrolled; in an A/A
        test, that of both.
        """
        key = program.name, state.version
        found = self._apart.get(key)
        if found is None:
            found = _arms_apart(state, program.fingerprints)
            self._apart = {key: found, **{other: arms for other, arms in self._apart.items() if other[0] != key[0]}}
        return found


def _arms_apart(state: ExperimentState, fingerprints: Mapping[str, str]) -> frozenset[str]:
    known = [fingerprints.get(arm) for arm in state.arms]
    return frozenset(
        arm for arm, own in zip(state.arms, known, strict=True) if arm == state.control or known.count(own) > 1
    )


@per_runtime(is_kept=True)
def process_states() -> KnownStates:
    """Return this process's states."""
    return KnownStates()
