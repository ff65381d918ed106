"""Circuit breaker of a model: allows calls while its provider works, and refuses them at once while it fails.

pybreaker provides states, listeners and errors. Its storage is ours: a snapshot of the fleet's state in Redis
(``dspyq.guards.breaker_state``), where every admission and outcome is decided. Its lock is held neither during a call
nor during a round trip.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import redis
from pybreaker import CircuitBreaker, CircuitBreakerError, CircuitBreakerListener, CircuitBreakerStorage

from dspyq.core.events import Event
from dspyq.errors import BreakerOpen
from dspyq.guards.breaker_state import (
    PROBE_LOOK_SECONDS,
    BreakerPolicy,
    BreakerState,
    CallEvent,
    EventEffect,
    FleetBreaker,
    Suspect,
)
from dspyq.guards.interruptions import Refusal
from dspyq.store.scripts import Step, run_together

logger = logging.getLogger("dspyq.breaker")

#: A count above every threshold, which makes pybreaker open or close.
_MANY = 1_000_000_000
#: Time between the start of a call and its arrival at the provider.
_FRESH_SECONDS = 0.02


@dataclass(slots=True, eq=False)
class BreakerCall:
    """One call of a provider within a breaker.

    Attributes:
        epoch: Epoch of the breaker when the call began.
        is_admitted: True if Redis admitted the call; always False while the breaker is closed, when none is needed.
        is_neutral: True if the outcome is no evidence about the provider.
        made_transition: True if its outcome opened or closed the breaker.
        suspect: The question behind the call; None for one of the call's own.
        row: The series of consecutive failures that its failure belongs to; 0 for none, None if Redis did not answer.
        failed_at: Time of the failure by Redis's clock, in microseconds.
    """

    epoch: int
    is_admitted: bool = False
    is_neutral: bool = False
    made_transition: bool = False
    suspect: Suspect | None = None
    row: int | None = None
    failed_at: int = 0
    _id: str = ""

    @property
    def id(self) -> str:
        """Unique id of the call, generated on first use: most calls never report anything to Redis."""
        self._id = self._id or uuid.uuid4().hex
        return self._id

    def ignore(self) -> None:
        """Mark the outcome as no evidence about the provider, such as an invalid request or a rate limit.

        The breaker ignores it; while half-open, another call may probe instead.
        """
        self.is_neutral = True


class Breaker:
    """A model's circuit breaker in this process.

    A call costs no round trip of its own while the breaker is closed and no failures are counted.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: Its thresholds and times.

    Attributes:
        circuit: pybreaker's; for its state and listeners.
        rejections: Number of calls that this process refused.
    """

    def __init__(self, client: redis.Redis, model_name: str, policy: BreakerPolicy) -> None:
        self.rejections = 0
        self._client = client
        self._model_name = model_name
        self._seconds_where_forced = policy.reset_timeout_seconds
        self._fleet = FleetBreaker(client, model_name, policy)
        self._storage = _Storage(self._fleet)
        self._count_lock = threading.Lock()
        self.circuit = CircuitBreaker(
            fail_max=policy.failure_threshold,
            reset_timeout=policy.reset_timeout_seconds,
            success_threshold=policy.success_threshold,
            exclude=[self._storage.is_neutral],
            listeners=[_FleetRules(self._storage)],
            state_storage=self._storage,
            name=model_name,
            throw_new_error_on_trip=False,  # the caller gets the provider's own error
        )

    @property
    def state(self) -> BreakerState:
        """The latest state read from Redis."""
        return self._storage.snapshot

    @property
    def unreported(self) -> int:
        """Number of outcomes that were lost because Redis did not answer."""
        return self._storage.unreported

    @property
    def is_fresh(self) -> bool:
        """Return True if another thread read the state from Redis a moment ago and it was closed."""
        state = self.state
        return state.name == "closed" and time.monotonic() - state.read_at < _FRESH_SECONDS

    def read(self) -> Step[None]:
        """Return a step that updates this process's snapshot of the state."""
        step = self._fleet.read()
        return Step(step.script, step.command, lambda reply: self._storage.learn(step.read(reply)))

    def check(self) -> None:
        """Refuse a call by this process's snapshot, without a round trip.

        Raises:
            Refusal: While it is open, or another call probes.
        """
        if self.state.seconds_to_wait(self._seconds_where_forced) > 0:
            raise self.refusal()

    def leave_to_others(self, suspect: Suspect) -> None:
        """Refuse a call whose question failed a moment ago, while others may probe; their queue is not paused.

        No round trip where the breaker is closed, or the question did not fail in this row.

        Raises:
            Refusal: While others may probe.
            redis.RedisError: If Redis does not answer.
        """
        if self.state.head_start_seconds(suspect) > 0:
            run_together(self._client, [self.read()])
            if (seconds := self.state.head_start_seconds(suspect)) > 0:
                raise self.refusal(seconds)

    def calling(self, suspect: Suspect | None = None) -> Calling:
        """Return the context manager to put around the provider's call, and around nothing else.

        An ``Exception`` that leaves the block counts as a failure of the provider unless ``ignore`` marked the
        call. Other exceptions, such as a refusal, are always neutral. Entering raises ``Refusal`` if the call may not
        be made, and ``redis.RedisError`` if Redis must decide that and does not answer; never while the breaker is
        closed.
        """
        return Calling(self, self._storage, suspect)

    def seconds_until_callable(self) -> float:
        """Return the seconds until a call may be made or may probe; 0 if one may now. One round trip.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        run_together(self._client, [self.read()])
        return self.state.seconds_to_wait(self._seconds_where_forced)

    def refusal(self, head_start_seconds: float = 0.0) -> Refusal:
        """Count a refusal, and return it to be raised; if others may probe, it does not pause the queue."""
        with self._count_lock:
            self.rejections += 1
        wait_seconds = self.state.seconds_to_wait(self._seconds_where_forced) or PROBE_LOOK_SECONDS
        wait_seconds = head_start_seconds or wait_seconds
        error = BreakerOpen(
            f"the provider of model {self._model_name!r} is ill and its circuit breaker {self.state.name}; try again "
            f"in {wait_seconds:.1f} s, or see `dspyq breaker show` and failure_threshold of [breaker]"
        )
        return Refusal(error, wait_seconds=wait_seconds, pauses_queue=not head_start_seconds)


class Calling:
    """A context around one call of the provider; a class, which costs less than a generator."""

    __slots__ = ("_before", "_breaker", "_circuit", "_storage", "_suspect")

    def __init__(self, breaker: Breaker, storage: _Storage, suspect: Suspect | None) -> None:
        self._breaker = breaker
        self._storage = storage
        self._suspect = suspect

    def __enter__(self) -> BreakerCall:
        """Begin the call, if it may be made."""
        storage = self._storage
        call = storage.begin(self._suspect)
        self._before, storage.call = storage.call, call
        self._circuit = self._breaker.circuit.calling()
        try:
            self._circuit.__enter__()
        except BaseException as error:
            storage.call = self._before
            if isinstance(error, CircuitBreakerError):
                raise self._breaker.refusal() from error
            raise
        return call

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Report the call's outcome."""
        try:
            return self._circuit.__exit__(kind, error, traceback)
        finally:
            self._storage.call = self._before


class _Storage(CircuitBreakerStorage):
    """Storage for pybreaker: its state is the snapshot, its counts come from the scripts' replies for this thread.

    State changes by pybreaker are not written: the script that triggered them has already changed the state in Redis.
    """

    def __init__(self, fleet: FleetBreaker) -> None:
        super().__init__("fleet")
        self.snapshot = BreakerState()
        self.unreported = 0
        self._fleet = fleet
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def call(self) -> BreakerCall | None:
        """The current thread's call: pybreaker's reads and counts refer to it."""
        call: BreakerCall | None = getattr(self._thread, "call", None)
        return call

    @call.setter
    def call(self, call: BreakerCall | None) -> None:
        self._thread.call = call

    def begin(self, suspect: Suspect | None) -> BreakerCall:
        """Begin a call; while the breaker is not closed, Redis decides if it may be made."""
        snapshot = self.snapshot
        call = BreakerCall(snapshot.epoch, suspect=suspect)
        if snapshot.name != "closed" and not snapshot.seconds_to_wait(_MANY):
            answer = self._send_report("admit", call)
            call.is_admitted, call.epoch = answer.is_admitted, answer.state.epoch
        return call

    def learn(self, state: BreakerState) -> None:
        """Store a state read from Redis, unless the snapshot is newer."""
        with self._lock:
            if not state.is_older_than(self.snapshot):
                self.snapshot = state

    def is_neutral(self, error: BaseException) -> bool:
        """Return True if an error is no evidence about the provider. pybreaker counts a success then; we do not."""
        call = self.call
        if call is None:
            return True
        if not isinstance(error, Exception):
            call.ignore()
        return call.is_neutral

    @property
    def state(self) -> str:
        """The name of the state, as pybreaker reads it."""
        return self.snapshot.name

    @state.setter
    def state(self, state: str) -> None:
        """Do nothing: the state moved in Redis."""

    @property
    def opened_at(self) -> datetime | None:
        """The current time: an elapsed opening has become half-open before pybreaker reads this."""
        return datetime.now(UTC)

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:
        """Do nothing: Redis's clock counts."""

    @property
    def counter(self) -> int:
        """A number above any threshold for the call whose failure opened the breaker, else 0."""
        return self._many_after_transition()

    @property
    def success_counter(self) -> int:
        """A number above any threshold for the call whose success closed the breaker, else 0."""
        return self._many_after_transition()

    def increment_counter(self) -> None:
        """Count the call's failure."""
        self._report("failed")

    def reset_counter(self) -> None:
        """Do nothing: pybreaker also calls this when another process closed the breaker (see ``count_success``)."""

    def count_success(self) -> None:
        """Count the call's success while closed, if there are failures to reset."""
        if self.call and not self.call.is_neutral and self.state == "closed" and self.snapshot.failures:
            self._report("succeeded")

    def increment_success_counter(self) -> None:
        """Count the probe's success; after a neutral probe, another call may probe."""
        self._report("nothing" if self.call and self.call.is_neutral else "succeeded")

    def reset_success_counter(self) -> None:
        """Do nothing: each transition resets the counter in Redis."""

    def _many_after_transition(self) -> int:
        return _MANY if self.call and self.call.made_transition else 0

    def _report(self, event: CallEvent) -> None:
        """Report the call's outcome to Redis. The caller gets its result or error even if that fails."""
        call = self.call
        if call is None:
            return
        try:
            answer = self._send_report(event, call)
            call.made_transition, call.row, call.failed_at = answer.is_transition, answer.row, answer.state.at
        except redis.RedisError as error:
            with self._lock:
                self.unreported += 1
            logger.warning(Event("breaker_not_told", error=f"{type(error).__name__}: {error}"))

    def _send_report(self, event: CallEvent, call: BreakerCall) -> EventEffect:
        answer = self._fleet.report(event, call.id, call.epoch, call.suspect)
        self.learn(answer.state)
        return answer


class _FleetRules(CircuitBreakerListener):
    """Rules that pybreaker's states lack: one probe in the fleet, and successes counted after the call has ended."""

    def __init__(self, storage: _Storage) -> None:
        self._storage = storage

    def before_call(self, cb: CircuitBreaker, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Refuse a call that is not the probe."""
        del cb, func, args, kwargs
        call = self._storage.call
        if self._storage.state != "closed" and not (call and call.is_admitted):
            raise CircuitBreakerError("another call probes")

    def success(self, cb: CircuitBreaker) -> None:
        """Count a success."""
        del cb
        self._storage.count_success()
