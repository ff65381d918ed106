"""Gate of a model's provider: closed for the whole fleet where it asked to wait or refuses the account.

It stands before the turns of the rate limit and is kept in the same hash. A question that the provider refuses time and
again, while others are answered, closes it for no other question: it waits alone (docs/guards-limits.md).
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import redis

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.store.keys import key
from dspyq.store.scripts import Step, load_script, run_together

logger = logging.getLogger("dspyq.rate_limit")

#: The first closing for a 429 without a ``Retry-After``.
_RETRY_AFTER_SECONDS = 1.0
_MICROSECONDS = 1_000_000
#: Time between the start of a call and its arrival at the provider.
_FRESH_SECONDS = 0.02

GateReason = Literal["retry_after", "account"]


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """Lengths of a gate's closings.

    Attributes:
        max_retry_after_seconds: The longest closing for a 429.
        account_pause_seconds: The first closing for an account that is refused or used up.
        max_account_pause_seconds: The longest of those.
    """

    max_retry_after_seconds: float
    account_pause_seconds: float
    max_account_pause_seconds: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the policy of ``[rate_limit]``."""
        common = settings.rate_limit
        return cls(common.max_retry_after_seconds, common.account_pause_seconds, common.max_account_pause_seconds)


@dataclass(frozen=True, slots=True)
class GateState:
    """State of a model's gate.

    Attributes:
        closed_seconds: Seconds that it stays closed; 0 if it is open.
        reason: The reason; empty if it is open.
    """

    closed_seconds: float
    reason: GateReason | Literal[""]


class AfterWait(NamedTuple):
    """State of a gate and of a variant when a call has its turn.

    Attributes:
        closed_seconds: Seconds that the gate stays closed; 0 if it is open.
        is_killed: Whether its variant, an arm of an experiment, was killed meanwhile.
    """

    closed_seconds: float
    is_killed: bool


class Refused(NamedTuple):
    """A question that a 429 refused, and its refusal before that; 0 without one.

    Attributes:
        question: Its name, the same for each of its calls.
        row: The row of refusals in which the refusal before stands.
        at: The time of that, by Redis's clock in microseconds.
    """

    question: str
    row: int = 0
    at: int = 0


class Closing(NamedTuple):
    """Result of a refused call.

    Attributes:
        seconds: How long the gate is closed now, or how long the question waits alone.
        row: The row of closings for this reason, without a stated time: a call that succeeds ends it.
        refused_at: The time of the refusal, by Redis's clock in microseconds.
        refused_row: The row of refusals with a 429 in which it stands: a call that succeeds ends it.
        crowded_at: Four different questions were refused with a 429 since then, this one included; 0 where fewer were.
    """

    seconds: float
    row: int
    refused_at: int
    refused_row: int
    crowded_at: int


class ProviderGate:
    """A model's gate, the same for every worker.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: How long it is closed.
    """

    def __init__(self, client: redis.Redis, model_name: str, policy: GatePolicy) -> None:
        self._client = client
        self._model_name = model_name
        self._policy = policy
        self._keys = (key(f"rate:{model_name}"),)
        self._look, self._close, self._succeed, self._reset = (
            load_script(client, "dspyq.guards", f"rate_{name}") for name in ("look", "close", "succeed", "reset")
        )
        self._awaits_success = False
        self._open_at = self._closed_at = -math.inf

    def note(self, *, awaits_success: bool, open_at: float | None) -> None:
        """Note another reply about the same hash.

        Args:
            awaits_success: Whether a success is to be reported.
            open_at: The local monotonic time at which the gate was open; None if it was closed.
        """
        self._awaits_success = awaits_success
        self._open_at = -math.inf if open_at is None else open_at

    @property
    def is_fresh(self) -> bool:
        """Return True if another thread saw the gate open a moment ago, and nothing was refused since a success."""
        open_at = self._open_at
        is_open = not self._awaits_success and open_at > self._closed_at
        return is_open and time.monotonic() - open_at < _FRESH_SECONDS

    def read_seconds(self) -> Step[float]:
        """Return a step that reads the seconds for which the gate is still closed."""
        return self._look.step(lambda reply: self._state(reply).closed_seconds, self._keys)

    def read_after_wait(self, queue: str) -> Step[AfterWait]:
        """Return a step that lets a call of a variant go which has waited for its turn."""
        return self._look.step(
            lambda reply: AfterWait(self._state(reply).closed_seconds, bool(reply[3])), self._keys, queue=queue
        )

    def read(self) -> GateState:
        """Return its state. One round trip."""
        state: GateState = run_together(self._client, [self._look.step(self._state, self._keys)])[0]
        return state

    def close(self, reason: GateReason, seconds: float | None = None, refused: Refused | None = None) -> Closing:
        """Close the gate for the fleet, or make one question wait alone. One round trip.

        Args:
            reason: ``retry_after``: a 429; ``account``: the account is refused or used up.
            seconds: The time that the provider demands; None for the default, which doubles until a call succeeds.
            refused: The question that a 429 refused; None without one.
        """
        policy = self._policy
        default, longest = (
            (policy.account_pause_seconds, policy.max_account_pause_seconds)
            if reason == "account"
            else (_RETRY_AFTER_SECONDS, policy.max_retry_after_seconds)
        )
        left, is_new, *rows = self._close(
            self._keys,
            id=uuid.uuid4().hex,
            reason=reason,
            stated="" if seconds is None else _microseconds(seconds),
            default=_microseconds(default),
            longest=_microseconds(longest),
            **_arguments(refused),
        )
        self._awaits_success, self._closed_at = True, time.monotonic()
        closing = Closing(left / _MICROSECONDS, *rows)
        if is_new:
            closed_seconds = round(closing.seconds, 1)
            logger.warning(Event("gate_closed", model=self._model_name, closed_seconds=closed_seconds, reason=reason))
        return closing

    def succeeded(self) -> Step[None] | None:
        """Return a step that ends the rows and the doubling of closings; None if Redis's last reply had none."""
        return self._succeed.step(_nothing, self._keys) if self._awaits_success else None

    def reset(self) -> bool:
        """Open the gate and end the doubling, in one round trip.

        Returns:
            True if it was closed.
        """
        was_closed = bool(self._reset(self._keys))
        if was_closed:
            logger.warning(Event("gate_opened", model=self._model_name, reason="by an operator"))
        return was_closed

    def _state(self, reply: list[Any]) -> GateState:
        left, reason, awaits_success, _ = reply
        self._awaits_success = bool(awaits_success)
        return GateState(left / _MICROSECONDS, _reason(reason) if left else "")


def _arguments(refused: Refused | None) -> dict[str, str | int]:
    if refused is None:
        return {}
    return {"question": refused.question, "row_before": refused.row, "refused_before": refused.at}


def _microseconds(seconds: float) -> int:
    return math.ceil(max(0.0, seconds) * _MICROSECONDS)


def _reason(reply: bytes | str) -> GateReason:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return text if text in get_args(GateReason) else "retry_after"  # type: ignore[return-value]  # it is one of them


def _nothing(reply: Any) -> None:
    del reply
