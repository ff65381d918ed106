"""State of a model's circuit breaker, shared by the fleet: one hash in Redis, changed by one script.

``dspyq.guards.breaker`` applies it to calls; operators change it with ``dspyq breaker``.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.store.keys import key
from dspyq.store.scripts import Step, load_script, run_together

logger = logging.getLogger("dspyq.breaker")

_EVENTS = {"closed": "breaker_closed", "half-open": "breaker_half_open", "open": "breaker_opened"}

#: Wait for the outcome of a running probe, before the next check.
PROBE_LOOK_SECONDS = 1.0
#: Time for which a question that failed in the present round of probes leaves the next probe to others.
HEAD_START_SECONDS = 2.0
#: Extra time for a probe beyond its provider's timeout, before another call may probe.
_PROBE_MARGIN_SECONDS = 5.0
_MICROSECONDS = 1_000_000
#: Fields that a reply omits without a current row of failures.
_NO_ROW = (0, 0, b"", 0, 0)

StateName = Literal["closed", "open", "half-open"]
CallEvent = Literal["admit", "failed", "succeeded", "nothing"]
Command = Literal["open", "close", "reset"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Thresholds and times of a model's breaker.

    Attributes:
        failure_threshold: Failures in a row that open it.
        success_threshold: Probes in a row that must succeed to close it.
        reset_timeout_seconds: Length of the first opening; each further one, without closing between, lasts twice
            as long.
        max_reset_timeout_seconds: The longest opening.
        probe_lease_seconds: Longest time of a probe; another call may probe after that.
    """

    failure_threshold: int
    success_threshold: int
    reset_timeout_seconds: float
    max_reset_timeout_seconds: float
    probe_lease_seconds: float

    @classmethod
    def of(cls, settings: Settings, model: Model) -> Self:
        """Return a model's policy: its own table's, else that of ``[breaker]``."""
        own, common = model, settings.breaker
        return cls(
            failure_threshold=own.failure_threshold or common.failure_threshold,
            success_threshold=own.success_threshold or common.success_threshold,
            reset_timeout_seconds=own.reset_timeout_seconds or common.reset_timeout_seconds,
            max_reset_timeout_seconds=own.max_reset_timeout_seconds or common.max_reset_timeout_seconds,
            probe_lease_seconds=model.timeout_seconds + _PROBE_MARGIN_SECONDS,
        )


class Suspect(NamedTuple):
    """The question that a call is made for.

    Attributes:
        question: Its name, the same for each of its calls.
        failed_in: The series of consecutive failures in which it failed last; 0 if it has not failed.
        failed_at: Time of that failure, by Redis's clock in microseconds.
    """

    question: str
    failed_in: int = 0
    failed_at: int = 0


@dataclass(frozen=True, slots=True)
class BreakerState:
    """State of a breaker in Redis at one time.

    Attributes:
        name: Its state.
        epoch: The number of the time since its last transition, always rising.
        failures: Failures in a row, while closed.
        open_seconds: Seconds that it stays open; None if an operator must close it.
        probe_seconds: Seconds that the running probe may still take; 0 without one.
        openings: Number of openings.
        at: Redis's time of this state, in microseconds.
        read_at: Local monotonic time at which it was read.
        row: The current series of failures, named by its start time; 0 if the latest call succeeded.
        round: Start of the present round of probes.
        outages: The last rows that were outages, as stored in Redis.
        probeable_seconds: Seconds since a probe has been allowed; negative until it is.
    """

    name: StateName = "closed"
    epoch: int = 0
    failures: int = 0
    open_seconds: float | None = 0.0
    probe_seconds: float = 0.0
    openings: int = 0
    at: int = 0
    read_at: float = 0.0
    row: int = 0
    round: int = 0
    outages: bytes | str = b""
    probeable_seconds: float = 0.0

    @property
    def outage_rows(self) -> frozenset[int]:
        """The last rows that were outages."""
        return frozenset(map(int, self.outages.split()))

    def head_start_seconds(self, suspect: Suspect) -> float:
        """Return the seconds for which a question still leaves the next probe to others."""
        if self.name == "closed" or self.is_forced or not self.row or suspect.failed_at < self.round:
            return 0.0
        passed_seconds = time.monotonic() - self.read_at
        return max(0.0, HEAD_START_SECONDS - self.probeable_seconds - passed_seconds)

    @property
    def is_forced(self) -> bool:
        """Return True if an operator opened the breaker and must close it."""
        return self.open_seconds is None

    def seconds_to_wait(self, seconds_where_forced: float) -> float:
        """Return the seconds until a call may be admitted or may probe; 0 if one may now.

        Args:
            seconds_where_forced: The result if an operator opened the breaker.
        """
        passed_seconds = time.monotonic() - self.read_at
        if self.name == "open":
            if self.open_seconds is None:
                return seconds_where_forced
            return max(0.0, self.open_seconds - passed_seconds)
        if self.name == "half-open":
            return min(PROBE_LOOK_SECONDS, max(0.0, self.probe_seconds - passed_seconds))
        return 0.0

    def is_older_than(self, other: BreakerState) -> bool:
        """Return True if this state precedes the other. A clock set back or data lost by Redis hides no newer state."""
        return self.at < other.at and self.epoch <= other.epoch


@dataclass(frozen=True, slots=True)
class EventEffect:
    """Outcome of a call's event.

    Attributes:
        state: The breaker after the event.
        is_transition: True if this event opened or closed the breaker.
        is_admitted: True if the call may be made.
        row: The series of consecutive failures that the call's failure belongs to; 0 for none.
    """

    state: BreakerState
    is_transition: bool
    is_admitted: bool
    row: int = 0


class FleetBreaker:
    """A model's breaker in Redis, the same for every worker.

    The process whose event makes a transition logs it, once.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: Its thresholds and times.
    """

    def __init__(self, client: redis.Redis, model_name: str, policy: BreakerPolicy) -> None:
        self._client = client
        self._model_name = model_name
        self._keys = (key(f"breaker:{model_name}"),)
        self._script, self._look = (load_script(client, "dspyq.guards", name) for name in ("breaker", "breaker_look"))
        self._policy = {
            "failure_threshold": policy.failure_threshold,
            "success_threshold": policy.success_threshold,
            "first_period": int(policy.reset_timeout_seconds * _MICROSECONDS),
            "longest_period": int(policy.max_reset_timeout_seconds * _MICROSECONDS),
            "lease": int(policy.probe_lease_seconds * _MICROSECONDS),
        }

    def read(self) -> Step[BreakerState]:
        """Return a step that reads it for a worker; a damaged one begins anew, and that is logged."""
        return self._script.step(lambda reply: self._answer(reply).state, self._keys, what="read")

    def look(self) -> Step[BreakerState]:
        """Return a step that reads it with the right to read alone; a damaged one is read as a new one."""
        return self._look.step(lambda reply: self._answer(reply).state, self._keys)

    def report(self, event: CallEvent, call_id: str, epoch: int, suspect: Suspect | None = None) -> EventEffect:
        """Report an event of a call in one round trip.

        Args:
            event: ``admit`` to request admission, else the call's outcome.
            call_id: Unique id of the call.
            epoch: The breaker's epoch when the call began.
            suspect: The question behind the call; None for one of the call's own.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return self._run(event, call_id, epoch, suspect)

    def command(self, command: Command) -> BreakerState:
        """Apply an operator's command, and return the new state.

        Args:
            command: ``open``: refuse all calls until another command; ``close``: allow calls and count failures from
                zero; ``reset``: as ``close``, and forget earlier openings.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return self._run(command, uuid.uuid4().hex, 0).state

    def _run(self, what: CallEvent | Command, event_id: str, epoch: int, suspect: Suspect | None = None) -> EventEffect:
        of_question = suspect._asdict() if suspect else {}
        step = self._script.step(
            self._answer, self._keys, what=what, id=event_id, of_epoch=epoch, **self._policy, **of_question
        )
        answer: EventEffect = run_together(self._client, [step])[0]
        return answer

    def _answer(self, reply: list[Any]) -> EventEffect:
        name, epoch, failures, left, probe_left, openings, before, is_admitted, at = reply[:9]
        row, stands, outages, round_began, probeable = reply[9:] or _NO_ROW
        state = BreakerState(
            name=_text(name),  # type: ignore[arg-type]  # the script returns no other
            epoch=epoch,
            failures=failures,
            open_seconds=None if left < 0 else left / _MICROSECONDS,
            probe_seconds=probe_left / _MICROSECONDS,
            openings=openings,
            at=at,
            read_at=time.monotonic(),
            row=row,
            round=round_began,
            outages=outages,
            probeable_seconds=probeable / _MICROSECONDS,
        )
        if before:
            self._log(_text(before), state)
        return EventEffect(state, bool(before), bool(is_admitted), row if stands else 0)

    def _log(self, before: str, state: BreakerState) -> None:
        event = Event(_EVENTS[state.name], model=self._model_name, before=before)
        if state.name == "open" and state.open_seconds is not None:  # else until an operator closes it
            event.fields["open_seconds"] = round(state.open_seconds, 1)
        logger.warning(event)


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply
