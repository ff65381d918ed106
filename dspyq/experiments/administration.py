"""Operation of experiments: start, ramp, pause, kill, stop, and the log of it all.

Each change is one script that compares the version, so two operators, or an operator and a worker, never undo each
other's change unseen. It reaches every process within a second; a claim by an older state is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import orjson
import redis

from dspyq.core.operator import operator_name
from dspyq.errors import ExperimentRefused
from dspyq.experiments.copies import announcement_of, channel_of_home, copy_to_spines, restore_home
from dspyq.experiments.counting import counting_settings
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import ExperimentStatus
from dspyq.experiments.state import ExperimentState, UnreadableState
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import experiment_home_key, experiment_log_key, killed_arms_key
from dspyq.store.scripts import load_script, read_hash

if TYPE_CHECKING:
    from dspyq.config.programs import Program

_MOST_LOG_ENTRIES = 1_000
_MOST_TRIES = 5
_MOST_REASON_CHARACTERS = 500


class LoggedChange(NamedTuple):
    """A change of an experiment.

    Attributes:
        at: The time, in seconds since 1970, by Redis's clock.
        version: The version it made.
        what: ``start``, ``ramp``, ``pause`` and so on.
        who: ``user@host`` of the operator, or the worker.
        reason: Their reason; empty for none.
        detail: The new value: a coverage, an arm, a variant.
    """

    at: float
    version: int
    what: str
    who: str
    reason: str
    detail: str


class StartedPlan(NamedTuple):
    """A plan, frozen when its experiment starts.

    Attributes:
        table: Its table of the configuration file.
        fingerprints: Each arm's.
        sha256: The hash of both.
    """

    table: dict[str, Any]
    fingerprints: dict[str, str]
    sha256: str


def plan_of(program: Program) -> StartedPlan:
    """Return the plan that the configuration file states now.

    Raises:
        ExperimentRefused: If the file has no experiment for the program.
    """
    experiment = program.experiment
    if experiment is None:
        raise ExperimentRefused(
            f"programs.{program.name}.experiment: there is no such table; state the experiment there"
        )
    table = experiment.model_dump(mode="json")
    fingerprints = {arm: program.fingerprints[arm] for arm in experiment.arms}
    written = orjson.dumps([table, fingerprints], option=orjson.OPT_SORT_KEYS)
    return StartedPlan(table, fingerprints, hashlib.sha256(written).hexdigest())


def read_state(program: str) -> ExperimentState | None:
    """Return the state of a program's experiment, or None if none was ever started.

    Raises:
        ExperimentRefused: If it cannot be read.
        RedisUnavailable: If Redis does not answer.
    """
    return _Operation(program).state


def read_plan(program: str) -> StartedPlan | None:
    """Return the plan that a program's experiment was started with.

    Raises:
        ExperimentRefused: If it cannot be read.
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the experiment"):
        stored = cast("bytes | None", money_client().hget(experiment_home_key(program), "plan"))
    if stored is None:
        return None
    try:
        return StartedPlan(**orjson.loads(stored))
    except (ValueError, TypeError):
        raise _unreadable(program) from None


def read_log(program: str, most: int = 100) -> list[LoggedChange]:
    """Return the latest changes of a program's experiments, the oldest of them first.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the experiment's log"):
        found = cast("list[Any]", money_client().xrevrange(experiment_log_key(program), count=most))
    return [_entry(identity, fields) for identity, fields in reversed(found)]


def start(program: Program, *, reason: str = "") -> ExperimentState:
    """Start the experiment that the file states, at the first step of its ramp.

    Raises:
        ExperimentRefused: If there is none, one runs, or one of that name was started before with another plan.
        RedisUnavailable: If Redis does not answer.
    """
    experiment, plan = program.experiment, plan_of(program)
    assert experiment is not None  # noqa: S101 - plan_of refuses that
    operation = _Operation(program.name)
    before = operation.state
    if before is not None and before.status in ("running", "paused"):
        raise ExperimentRefused(
            f"{before.name} is {before.status}; stop it first: dspyq experiment stop {program.name}"
        )
    # A name salts its units and is in its answers' keys: units would have their old arms, and the control old answers.
    used = {entry.detail for entry in read_log(program.name, _MOST_LOG_ENTRIES) if entry.what == "start"}
    if before is not None and experiment.name in {before.name, *used}:
        raise ExperimentRefused(
            f"an experiment named {experiment.name} has ended; its counts stay. Give the next one a name of its own: "
            f"programs.{program.name}.experiment.name"
        )
    now = operation.now()
    state = ExperimentState(
        program=program.name,
        name=experiment.name,
        version=(before.version if before else 0) + 1,
        status="running",
        arms=experiment.arms,
        coverage=experiment.ramp[0].coverage,
        serve=experiment.control,
        epoch=os.urandom(8).hex(),
        plan_sha256=plan.sha256,
        started_at=now,
        step_at=now,
        unit=experiment.unit,
        draws=experiment.draws,
        slow_wait_seconds=experiment.thresholds.get("call.slow_wait"),
        tracks_served=bool(experiment.scores or experiment.keep_rows),
        reason=_written(reason),
    )
    operation.write(before, state, Change("start", experiment.name, reason), plan)
    return state


def ramp(program: str, coverage: float, *, reason: str = "") -> ExperimentState:
    """Enrol another part of all units, 0 to 1; the plan's ramp is held from then on.

    Raises:
        ExperimentRefused: If no experiment is under way, or ``coverage`` is out of range.
        RedisUnavailable: If Redis does not answer.
    """
    if not 0 <= coverage <= 1:
        raise ExperimentRefused(f"a coverage is 0 to 1, not {coverage:g}")
    return _change(program, Change("ramp", f"{coverage:g}", reason), coverage=coverage, is_held=True)


def hold(program: str, *, held: bool, reason: str = "") -> ExperimentState:
    """Keep the coverage as it is, or let it follow the plan's ramp again.

    Raises:
        ExperimentRefused: If no experiment is under way.
        RedisUnavailable: If Redis does not answer.
    """
    return _change(program, Change("hold" if held else "follow the ramp", "", reason), is_held=held)


def pause(program: str, *, reason: str = "") -> ExperimentState:
    """Serve the control to all, and count nothing; arms and counts stay.

    Raises:
        ExperimentRefused: If no experiment is under way.
        RedisUnavailable: If Redis does not answer.
    """
    return _change(program, Change("pause", "", reason), status="paused")


def resume(program: str, *, reason: str = "") -> ExperimentState:
    """Go on with a paused experiment: every unit gets its arm again. The step of the ramp begins anew.

    Raises:
        ExperimentRefused: If no experiment is under way.
        RedisUnavailable: If Redis does not answer.
    """
    return _change(program, Change("resume", "", reason), status="running", step_at=_Operation(program).now())


def kill(program: str, arm: str, *, reason: str = "") -> ExperimentState:
    """Assign an arm to no unit any more, and let no model call of it begin, not even those of queued jobs.

    Raises:
        ExperimentRefused: If no experiment is under way, or it has no such challenger.
        RedisUnavailable: If Redis does not answer.
    """
    state = _required(_Operation(program).state, program)
    if arm not in state.arms[1:]:
        raise ExperimentRefused(f"{arm!r} is no challenger of {state.name}; they are {', '.join(state.arms[1:])}")
    killed = tuple(dict.fromkeys((*state.killed, arm)))
    return _change(program, Change("kill", arm, reason), killed=killed)


def list_killed(state: ExperimentState) -> None:
    """List the killed arms again where model calls begin, should that key be lost: each change writes it too.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    if state.killed:
        with redis_errors("kill the arm"):
            money_client().sadd(killed_arms_key(), *map(state.queue_of, state.killed))


def stop(program: str, *, serve: str | None = None, by_weight: bool = False, reason: str = "") -> ExperimentState:
    """End the experiment for good, and serve one variant to all.

    Args:
        program: The program's name.
        serve: The variant; the control where left out. It is served whatever the file's weights.
        by_weight: Whether to leave assignment to the file's weights instead.
        reason: For the log.

    Raises:
        ExperimentRefused: If there is none, or it has no such arm.
        RedisUnavailable: If Redis does not answer.
    """
    state = _Operation(program).state
    if state is None:
        raise ExperimentRefused(f"{program} has no experiment")
    chosen = serve or state.control
    if chosen not in state.arms:
        raise ExperimentRefused(f"{chosen!r} is no arm of {state.name}; they are {', '.join(state.arms)}")
    if chosen in state.killed:
        raise ExperimentRefused(f"{chosen} was killed; serve another arm")
    status: ExperimentStatus = "off" if by_weight else "stopped"
    detail = "by weight" if by_weight else chosen
    return _change(program, Change("stop", detail, reason), may_be_over=True, status=status, serve=chosen)


class Change(NamedTuple):
    """A change, as the log states it.

    Attributes:
        what: ``start``, ``ramp`` and so on.
        detail: The new value; empty for none.
        reason: The operator's reason; empty for none.
        who: Its author; ``user@host`` of this process where left out.
    """

    what: str
    detail: str = ""
    reason: str = ""
    who: str = ""


def change_from(state: ExperimentState, made: ExperimentState, change: Change) -> bool:
    """Write a change made from a state that was read; return False where another change came first.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    return _Operation(state.program).try_to_write(state, made, change)


def _change(program: str, change: Change, *, may_be_over: bool = False, **changes: Any) -> ExperimentState:
    for _ in range(_MOST_TRIES):
        operation = _Operation(program)
        before = operation.state if may_be_over else _required(operation.state, program)
        assert before is not None  # noqa: S101 - the callers check
        state = before.changed(**changes, reason=_written(change.reason))
        if operation.try_to_write(before, state, change):
            return state
    raise ExperimentRefused(f"others change the experiment of {program} at the same time; look at it and try again")


def _required(state: ExperimentState | None, program: str) -> ExperimentState:
    if state is None:
        raise ExperimentRefused(f"{program} has no experiment; start one: dspyq experiment start {program}")
    if state.status in ("stopped", "off"):
        raise ExperimentRefused(f"{state.name} has ended; start another: dspyq experiment start {program}")
    return state


class _Operation:
    """One look at a program's experiment, and the change made from it."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._client = money_client()
        with redis_errors("read the experiment"):
            found = read_hash(self._client.hgetall(experiment_home_key(program)))
            if not found and restore_home(program):
                found = read_hash(self._client.hgetall(experiment_home_key(program)))
        self.state = self._read(found)

    def _read(self, found: Mapping[bytes, bytes]) -> ExperimentState | None:
        if not found:
            return None
        try:
            return ExperimentState.read(self._program, int(found.get(b"version", b"")), found.get(b"state", b""))
        except (UnreadableState, ValueError):
            raise _unreadable(self._program) from None

    def now(self) -> float:
        """Return the time of Redis, in seconds since 1970."""
        with redis_errors("start the experiment"):
            seconds, microseconds = self._client.time()
        return seconds + microseconds / 1e6

    def write(self, before: ExperimentState | None, state: ExperimentState, change: Change, plan: StartedPlan) -> None:
        """Write a first state.

        Raises:
            ExperimentRefused: If another change came first.
        """
        if not self.try_to_write(before, state, change, plan):
            raise ExperimentRefused(f"another experiment of {self._program} was started at the same time")

    def try_to_write(
        self,
        before: ExperimentState | None,
        state: ExperimentState,
        change: Change,
        plan: StartedPlan | None = None,
    ) -> bool:
        """Write a state; return False if another change came first."""
        who = change.who or operator_name()
        entry = {**change._asdict(), "who": who, "version": state.version}
        entry["reason"] = _written(change.reason)
        written = state.dump()
        with redis_errors("change the experiment"):
            reply = load_script(self._client, "dspyq.experiments", "change")(
                [experiment_home_key(self._program), experiment_log_key(self._program)],
                expected="" if before is None else str(before.version),
                version=str(state.version),
                written=written,
                id=os.urandom(8).hex(),
                plan=orjson.dumps(plan._asdict()) if plan else b"",
                counting=counting_settings(state.epoch, plan.table) if plan else "",
                entry=orjson.dumps(entry),
                announcement=announcement_of(self._program, state.version, written),
                channel=channel_of_home(),
                most=_MOST_LOG_ENTRIES,
                arms=[part for arm in state.arms for part in (state.queue_of(arm), "1" if arm in state.killed else "")],
            )
        if reply:
            copy_to_spines(self._program)
            process_states().learn(self._program, str(state.version), written)  # others get it within a second
        return bool(reply)


def _written(reason: str) -> str:
    """Return a reason as it is kept: every refused claim replies with it."""
    return reason[:_MOST_REASON_CHARACTERS].encode("utf-8", "replace").decode()


def _unreadable(program: str) -> ExperimentRefused:
    return ExperimentRefused(
        f"{experiment_home_key(program)} in Redis is no state that this version reads: give all hosts the same "
        "version of dspyq, or delete that key"
    )


def _entry(identity: bytes, fields: Mapping[bytes, bytes]) -> LoggedChange:
    at = int(identity.split(b"-")[0]) / 1000
    try:
        stated = orjson.loads(fields.get(b"entry", b""))
        texts = [str(stated.get(name, "")) for name in ("what", "who", "reason", "detail")]
        return LoggedChange(at, int(stated["version"]), *texts)
    except (ValueError, TypeError, KeyError, AttributeError, redis.RedisError):
        return LoggedChange(at, 0, "unreadable", "", "", "")
