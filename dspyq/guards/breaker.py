"""The circuit breaker of a model: calls are made while its provider is well, and refused at once while it is ill.

pybreaker is the breaker that code sees: its states, listeners and errors. Its storage is ours, over a snapshot of what
the whole fleet agrees on in Redis (``dspyq.guards.breaker_state``): every admission and outcome is decided there, and
pybreaker follows. Its lock is held neither over a call nor over a round trip.
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
    Answer,
    BreakerPolicy,
    BreakerState,
    CallEvent,
    FleetBreaker,
)
from dspyq.guards.interruptions import Refusal
from dspyq.store.scripts import Step, run_together

logger = logging.getLogger("dspyq.breaker")

#: Above every threshold: pybreaker is to open or close.
_MANY = 1_000_000_000
#: A call is on its way for as long before its provider hears of it.
_FRESH_SECONDS = 0.02


@dataclass(slots=True, eq=False)
class ProviderCall:
    """One call of a provider within a breaker.

    Attributes:
        epoch: The breaker's, when the call began.
        is_admitted: Whether Redis said that it may be made; not asked while closed.
        is_neutral: Whether it says nothing about the provider.
        made_transition: Whether its outcome opened or closed the breaker.
    """

    epoch: int
    is_admitted: bool = False
    is_neutral: bool = False
    made_transition: bool = False
    _id: str = ""

    @property
    def id(self) -> str:
        """Its own; made where something is to be said of it, which of most calls is nothing."""
        self._id = self._id or uuid.uuid4().hex
        return self._id

    def says_nothing(self) -> None:
        """Mark it: its error is not the provider's illness, as a request that is wrong or one too many.

        It changes nothing then; while half-open another call may probe in its place.
        """
        self.is_neutral = True


class Breaker:
    """A model's circuit breaker in this process.

    A call costs no round trip of its own while the breaker is closed and no failures are counted.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: When it opens and closes.

    Attributes:
        circuit: pybreaker's; for its state and listeners.
        rejections: How many calls this process refused.
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
            throw_new_error_on_trip=False,  # the caller is told what the provider did
        )

    @property
    def state(self) -> BreakerState:
        """What Redis said last."""
        return self._storage.snapshot

    @property
    def unsaid(self) -> int:
        """How many outcomes of calls were lost because Redis did not answer."""
        return self._storage.unsaid

    @property
    def is_fresh(self) -> bool:
        """Whether another thread asked Redis a moment ago, and found it closed."""
        state = self.state
        return state.name == "closed" and time.monotonic() - state.read_at < _FRESH_SECONDS

    def read(self) -> Step[None]:
        """Return a step that brings what this process knows up to date."""
        step = self._fleet.read()
        return Step(step.script, step.command, lambda reply: self._storage.learn(step.read(reply)))

    def check(self) -> None:
        """Refuse a call that would be refused, by what is known here; no round trip.

        Raises:
            Refusal: While it is open, or another call probes.
        """
        if self.state.seconds_to_wait(self._seconds_where_forced) > 0:
            raise self.refusal()

    def calling(self) -> Calling:
        """Return what stands around the provider's call, and nothing else.

        An ``Exception`` that leaves the block counts as the provider's failure unless the call was marked by
        ``says_nothing``; what is no ``Exception``, as a refusal, always says nothing. To enter it raises ``Refusal``
        where the call may not be made, and ``redis.RedisError`` where Redis must decide that and does not answer, which
        is never while the breaker is closed.
        """
        return Calling(self, self._storage)

    def seconds_until_callable(self) -> float:
        """Return how long no call will be admitted; 0 where one may be made, or may probe, now. One round trip.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        run_together(self._client, [self.read()])
        return self.state.seconds_to_wait(self._seconds_where_forced)

    def refusal(self) -> Refusal:
        """Count a refusal, and return it to be raised."""
        with self._count_lock:
            self.rejections += 1
        wait_seconds = self.state.seconds_to_wait(self._seconds_where_forced) or PROBE_LOOK_SECONDS
        error = BreakerOpen(
            f"the provider of model {self._model_name!r} is ill and its circuit breaker {self.state.name}; try again "
            f"in {wait_seconds:.1f} s, or see `dspyq breaker show` and failure_threshold of [breaker]"
        )
        return Refusal(error, wait_seconds=wait_seconds, pauses_queue=True)


class Calling:
    """A context around one call of the provider; a class, for a generator's context costs more."""

    __slots__ = ("_before", "_breaker", "_circuit", "_storage")

    def __init__(self, breaker: Breaker, storage: _Storage) -> None:
        self._breaker = breaker
        self._storage = storage

    def __enter__(self) -> ProviderCall:
        """Begin the call, where it may be made."""
        storage = self._storage
        call = storage.begin()
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
        """Say what it came to."""
        try:
            return self._circuit.__exit__(kind, error, traceback)
        finally:
            self._storage.call = self._before


class _Storage(CircuitBreakerStorage):
    """What pybreaker takes for its own counts and state: the snapshot, and what the scripts say of the thread's call.

    pybreaker's changes of state are not written: the script that made it want them has moved the state already.
    """

    def __init__(self, fleet: FleetBreaker) -> None:
        super().__init__("fleet")
        self.snapshot = BreakerState()
        self.unsaid = 0
        self._fleet = fleet
        self._lock = threading.Lock()
        self._thread = threading.local()

    @property
    def call(self) -> ProviderCall | None:
        """The call that this thread makes: what pybreaker asks and says here is about it."""
        call: ProviderCall | None = getattr(self._thread, "call", None)
        return call

    @call.setter
    def call(self, call: ProviderCall | None) -> None:
        self._thread.call = call

    def begin(self) -> ProviderCall:
        """Begin a call: while the breaker is not closed, Redis says whether it may be made."""
        snapshot = self.snapshot
        call = ProviderCall(snapshot.epoch)
        if snapshot.name != "closed" and not snapshot.seconds_to_wait(_MANY):
            answer = self._tell("admit", call)
            call.is_admitted, call.epoch = answer.is_admitted, answer.state.epoch
        return call

    def learn(self, state: BreakerState) -> None:
        """Take what Redis said; a reply that comes late does not undo a later one."""
        with self._lock:
            if not state.is_older_than(self.snapshot):
                self.snapshot = state

    def is_neutral(self, error: BaseException) -> bool:
        """Whether an error says nothing about the provider. pybreaker then takes the call for a success; we do not."""
        call = self.call
        if call is None:
            return True
        if not isinstance(error, Exception):
            call.says_nothing()
        return call.is_neutral

    @property
    def state(self) -> str:
        """The state, as pybreaker asks for it."""
        return self.snapshot.name

    @state.setter
    def state(self, state: str) -> None:
        """Do nothing: the state moved in Redis."""

    @property
    def opened_at(self) -> datetime | None:
        """Just now: an opening that is over has become half-open before pybreaker looks."""
        return datetime.now(UTC)

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:
        """Do nothing: Redis's clock counts."""

    @property
    def counter(self) -> int:
        """Many for the call whose failure opened the breaker."""
        return self._many_after_transition()

    @property
    def success_counter(self) -> int:
        """Many for the call whose success closed the breaker."""
        return self._many_after_transition()

    def increment_counter(self) -> None:
        """Count the call's failure."""
        self._report("failed")

    def reset_counter(self) -> None:
        """Do nothing: pybreaker also asks for it when it sees that others closed the breaker (``count_success``)."""

    def count_success(self) -> None:
        """Count the call's success while closed, where there is something to reset."""
        if self.call and not self.call.is_neutral and self.state == "closed" and self.snapshot.failures:
            self._report("succeeded")

    def increment_success_counter(self) -> None:
        """Count the probe's success; one that says nothing makes room for another."""
        self._report("nothing" if self.call and self.call.is_neutral else "succeeded")

    def reset_success_counter(self) -> None:
        """Do nothing: each transition does."""

    def _many_after_transition(self) -> int:
        return _MANY if self.call and self.call.made_transition else 0

    def _report(self, event: CallEvent) -> None:
        """Say what the call came to. The caller has its answer, or its error, also when Redis has not."""
        call = self.call
        if call is None:
            return
        try:
            call.made_transition = self._tell(event, call).is_transition
        except redis.RedisError as error:
            with self._lock:
                self.unsaid += 1
            logger.warning(Event("breaker_not_told", error=f"{type(error).__name__}: {error}"))

    def _tell(self, event: CallEvent, call: ProviderCall) -> Answer:
        answer = self._fleet.tell(event, call.id, call.epoch)
        self.learn(answer.state)
        return answer


class _FleetRules(CircuitBreakerListener):
    """What pybreaker's states lack: one probe in the fleet, and successes that count once the call has ended."""

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
