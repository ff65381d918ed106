"""What the fleet knows of a model's provider: the state of its circuit breaker, in one hash and one script.

``dspyq.guards.breaker`` puts it around calls; operators change it by ``dspyq breaker``.
"""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal, Self

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.store.clients import KEY_PREFIX
from dspyq.store.scripts import Step, load_script, run_together

logger = logging.getLogger("dspyq.breaker")

_EVENTS = {"closed": "breaker_closed", "half-open": "breaker_half_open", "open": "breaker_opened"}

BREAKER_PREFIX = f"{KEY_PREFIX}breaker:"
#: How long a call waits for the outcome of the one that probes, before it asks again.
PROBE_LOOK_SECONDS = 1.0
#: What a probe may take beyond its provider's wall clock, before another takes its place.
_PROBE_MARGIN_SECONDS = 5.0
_MICROSECONDS = 1_000_000

StateName = Literal["closed", "open", "half-open"]
CallEvent = Literal["admit", "failed", "succeeded", "nothing"]
Command = Literal["open", "close", "reset"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a model's breaker opens and closes.

    Attributes:
        failure_threshold: Failures in a row that open it.
        success_threshold: Probes in a row that must succeed to close it.
        reset_timeout_seconds: How long the first opening lasts; each further one, without closing between, lasts twice
            as long.
        max_reset_timeout_seconds: The longest opening.
        probe_lease_seconds: How long a probe may take; another call may probe after that.
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


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A breaker, as Redis had it at one time.

    Attributes:
        name: Its state.
        epoch: The number of the time since its last transition, always rising.
        failures: Failures in a row, while closed.
        open_seconds: How long it stays open; None where an operator must close it.
        probe_seconds: How long the probe that is out may still take; 0 where none is.
        openings: How often it has opened.
        at: Redis's time of this, in microseconds.
        read_at: The local monotonic time of this.
    """

    name: StateName = "closed"
    epoch: int = 0
    failures: int = 0
    open_seconds: float | None = 0.0
    probe_seconds: float = 0.0
    openings: int = 0
    at: int = 0
    read_at: float = 0.0

    @property
    def is_forced(self) -> bool:
        """Whether an operator opened it, and must close it."""
        return self.open_seconds is None

    def seconds_to_wait(self, seconds_where_forced: float) -> float:
        """Return how long no call will be admitted, from now on; 0 where one may be, or may probe.

        Args:
            seconds_where_forced: The answer where only an operator can tell.
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
        """Whether this is what was before the other. Neither a clock that was set back nor lost data hides the news."""
        return self.at < other.at and self.epoch <= other.epoch


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call's event came to.

    Attributes:
        state: The breaker after it.
        is_transition: Whether this event made a transition.
        is_admitted: Whether the call that asked may be made.
    """

    state: BreakerState
    is_transition: bool
    is_admitted: bool


class FleetBreaker:
    """A model's breaker in Redis, the same for every worker.

    Whoever makes a transition logs it, once.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: When it opens and closes.
    """

    def __init__(self, client: redis.Redis, model_name: str, policy: BreakerPolicy) -> None:
        self._client = client
        self._model_name = model_name
        self._keys = (BREAKER_PREFIX + model_name,)
        self._script = load_script(client, "dspyq.guards", "breaker")
        self._policy = (
            policy.failure_threshold,
            policy.success_threshold,
            int(policy.reset_timeout_seconds * _MICROSECONDS),
            int(policy.max_reset_timeout_seconds * _MICROSECONDS),
            int(policy.probe_lease_seconds * _MICROSECONDS),
        )

    def read(self) -> Step[BreakerState]:
        """Return a step that reads it."""
        return self._script.step(lambda reply: self._answer(reply).state, self._keys, ("read",))

    def tell(self, event: CallEvent, call_id: str, epoch: int) -> Answer:
        """Say what a call asks or came to. One round trip.

        Args:
            event: ``admit``: it asks whether it may be made; else what it said of the provider.
            call_id: The call's own id.
            epoch: The breaker's epoch when the call began.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return self._run(event, call_id, epoch)

    def command(self, command: Command) -> BreakerState:
        """Do what an operator says, and return what it came to.

        Args:
            command: ``open``: no call is made until another command; ``close``: calls are made, and failures counted
                from nothing; ``reset``: the same, and openings are forgotten.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return self._run(command, uuid.uuid4().hex, 0).state

    def _run(self, what: CallEvent | Command, event_id: str, epoch: int) -> Answer:
        step = self._script.step(self._answer, self._keys, (what, event_id, epoch, *self._policy))
        answer: Answer = run_together(self._client, [step])[0]
        return answer

    def _answer(self, reply: list[Any]) -> Answer:
        name, epoch, failures, left, probe_left, openings, before, is_admitted, at = reply
        state = BreakerState(
            name=_text(name),  # type: ignore[arg-type]  # the script knows no other
            epoch=epoch,
            failures=failures,
            open_seconds=None if left < 0 else left / _MICROSECONDS,
            probe_seconds=probe_left / _MICROSECONDS,
            openings=openings,
            at=at,
            read_at=time.monotonic(),
        )
        if before:
            self._log(_text(before), state)
        return Answer(state, bool(before), bool(is_admitted))

    def _log(self, before: str, state: BreakerState) -> None:
        event = Event(_EVENTS[state.name], model=self._model_name, before=before)
        if state.name == "open" and state.open_seconds is not None:  # else until an operator closes it
            event.fields["open_seconds"] = round(state.open_seconds, 1)
        logger.warning(event)


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply
