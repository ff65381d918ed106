"""The referee of experiments: looks at each, reports what it finds, and acts on it.

Any number of referees may run at once. A look is written under its number and an act changes the state's version, so of
several referees one reports and one acts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

from dspyq.core.days import day_at
from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.experiments.acts import Act, Discovery, act_of, findings
from dspyq.experiments.administration import Change, change_from, list_killed, read_plan
from dspyq.experiments.folding import fold_mature_days
from dspyq.experiments.look import Look
from dspyq.experiments.looks import LookedAt, look_at
from dspyq.experiments.looks_store import Notes, StoredLooks, read_looks, write_look
from dspyq.experiments.state import ExperimentState, UnreadableState
from dspyq.experiments.sums_reader import read_sums
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import experiment_home_key

logger = logging.getLogger("dspyq.experiments")

#: The place of the flags among the settings of the counts.
_FLAGS = 3
_DEFAULT_PAUSE_AFTER_SECONDS = 300.0
#: Looks at an experiment that has ended: its judgements come over days.
_SECONDS_BETWEEN_LATE_LOOKS = 3_600.0
_EVENTS = {
    "ramp": "experiment_ramped",
    "kill": "experiment_arm_killed",
    "roll back": "experiment_rolled_back",
    "pause": "experiment_paused",
    "promote": "experiment_promoted",
}


class Refusals(NamedTuple):
    """Arms whose calls are refused now, each with the reason.

    Attributes:
        for_a_while: Refused until a provider answers again: no arm once that lasts.
        until_later: Refused until a day or a month is over: no arm from now on.
    """

    for_a_while: Mapping[str, str] = {}
    until_later: Mapping[str, str] = {}


def no_refusals(state: ExperimentState) -> Refusals:
    """Return that no arm's calls are refused: for a process that cannot see the guards."""
    del state
    return Refusals()


def read_active(programs: Iterable[str]) -> list[ExperimentState]:
    """Return the states of experiments that are under way, or whose feedback may still come, in one round trip.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    names = list(programs)
    with redis_errors("read the experiments"):
        reading = money_client().pipeline(transaction=False)
        for program in names:
            reading.hmget(experiment_home_key(program), "version", "state", "counting")
        found = cast("list[list[bytes | None]]", reading.execute())
    states = []
    for program, (version, stored, counting) in zip(names, found, strict=True):
        if version is None or stored is None:
            continue
        try:
            state = ExperimentState.read(program, int(version), stored)
        except (UnreadableState, ValueError) as error:
            tolerate("experiment_state", error)
            continue
        if not is_over(state) or _counts_feedback(counting or b""):
            states.append(state)
    return states


def is_over(state: ExperimentState) -> bool:
    """Return True if an experiment has ended."""
    return state.status in ("stopped", "off")


def take_look(
    state: ExperimentState, table: Mapping[str, Any], now: float, *, stored: StoredLooks | None = None
) -> LookedAt:
    """Return a look at the sums as they are now; nothing is written.

    Args:
        state: The experiment.
        table: Its frozen table.
        now: Seconds since 1970.
        stored: The looks before; read where left out.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    before = stored or read_looks(state)
    readings = read_sums(state, table, today=day_at(now))
    return look_at(state, table, readings, before.tracks, now)


class Referee:
    """A referee.

    Args:
        name: Its author's name in experiments' logs.
        refusals: Returns the arms of an experiment whose calls are refused now.
        clock: Returns the time in seconds since 1970; that of Redis where left out.
    """

    def __init__(
        self,
        name: str,
        refusals: Callable[[ExperimentState], Refusals] = no_refusals,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._name = name
        self._refusals = refusals
        self._clock = clock or read_time

    def attend_to(self, state: ExperimentState) -> Look | None:
        """Look at an experiment, report what is new, and act; None where another referee did.

        Raises:
            ExperimentRefused: If its plan cannot be read.
            RedisUnavailable: If Redis does not answer.
        """
        plan = read_plan(state.program)
        if plan is None or plan.sha256 != state.plan_sha256:  # another experiment has started meanwhile
            return None
        table, now = plan.table, self._clock()
        today = day_at(now)
        stored = read_looks(state)
        if not is_over(state):
            list_killed(state)
        elif _has_all(table, stored, now):
            return None
        looked = take_look(state, table, now, stored=stored)
        found = list(findings(state, looked.look))
        notes, unfit = self._fitness(state, table, stored.notes, now)
        new = [each for each in found if each.name not in stored.notes.done]
        notes = replace(notes, done=stored.notes.done | {each.name for each in new})
        if is_over(state):
            notes = replace(notes, ended_day=notes.ended_day or today)
        folded_day = fold_mature_days(state, table, folded_day=stored.notes.folded_day, today=today)
        if not write_look(state, looked, replace(notes, folded_day=folded_day)):
            return None
        for each in new:
            _report(state, each)
        act = act_of(state, table, found, unfit, now)
        if act is not None:
            self._do(state, act)
        return looked.look

    def _fitness(
        self, state: ExperimentState, table: Mapping[str, Any], notes: Notes, now: float
    ) -> tuple[Notes, dict[str, str]]:
        """Return the notes with the time since which arms are refused, and the arms that are none, with the reason."""
        if state.status != "running":
            return replace(notes, unfit_since={}), {}
        refused = self._refusals(state)
        since = {arm: notes.unfit_since.get(arm, now) for arm in refused.for_a_while}
        most_seconds = float(table.get("pause_after_seconds", _DEFAULT_PAUSE_AFTER_SECONDS))
        unfit = dict(refused.until_later)
        for arm, began_at in since.items():
            if now - began_at >= most_seconds:
                unfit.setdefault(arm, f"{refused.for_a_while[arm]} for {now - began_at:.0f} s")
        return replace(notes, unfit_since=since), unfit

    def _do(self, state: ExperimentState, act: Act) -> None:
        made = state.changed(**act.changes, reason=act.reason)
        if not change_from(state, made, Change(act.kind, act.detail, act.reason, who=self._name)):
            return  # another change came first; the next look acts on that state
        log = logger.info if act.kind == "ramp" else logger.warning
        log(
            Event(
                _EVENTS[act.kind],
                program=state.program,
                experiment=state.name,
                to=act.detail or made.status,
                reason=act.reason,
                version=made.version,
            )
        )


def _counts_feedback(counting: bytes) -> bool:
    """Return True if the settings of an experiment's counts, as scripts read them, have judgements."""
    return len(words := counting.split()) > _FLAGS and b"f" in words[_FLAGS]


def _has_all(table: Mapping[str, Any], stored: StoredLooks, now: float) -> bool:
    """Return True if an ended experiment needs no look: its judgements are complete, or the last look was just now."""
    notes, latest = stored.notes, stored.latest
    is_complete = not table["feedback"] or (notes.ended_day and notes.folded_day >= notes.ended_day)
    return bool(is_complete) or (latest is not None and now - latest.at < _SECONDS_BETWEEN_LATE_LOOKS)


def _report(state: ExperimentState, finding: Discovery) -> None:
    log = logger.info if finding.event == "experiment_wins" else logger.warning
    log(Event(finding.event, program=state.program, experiment=state.name, **finding.fields))


def read_time() -> float:
    """Return the time of Redis, in seconds since 1970.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the time"):
        seconds, microseconds = money_client().time()
    return float(seconds) + microseconds / 1e6
