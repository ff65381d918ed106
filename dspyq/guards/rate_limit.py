"""The rate limit of a model, over the whole fleet: each call reserves its turn in Redis, and waits for it here.

A turn is a slot of GCRA (a token bucket that stores one time), so callers are served in the order in which they came.
Before all of them stands the model's gate: closed for everyone where a provider asked to wait or refuses the account.

**As sent, not as reserved.** A thread wakes late when its machine is busy, and those that wake together send in a
clump. So slots are given out a little slower than the limit, and what is kept back pays for waking late: up to
``late_seconds`` after its slot, a call cannot carry any second over the limit. One that is later (``is_late``) must not
be sent, and reserves anew; its slot is lost. Slots are told by Redis's clock, so a slow reply makes no call late.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import redis

from dspyq.batch.account import account_key
from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.guards.redis_clock import RedisClock
from dspyq.store.clients import KEY_PREFIX
from dspyq.store.scripts import Step, load_script, run_together

logger = logging.getLogger("dspyq.rate_limit")

RATE_PREFIX = f"{KEY_PREFIX}rate:"
#: The share of the requests that is kept back.
_MARGIN = 0.03
#: The latest that a call may be sent, however slow the rate.
_MOST_LATE_SECONDS = 0.5
#: The first closing for a 429 that does not say how long.
_RETRY_AFTER_SECONDS = 1.0
#: A script is repeated after a lost connection, within this.
_REPETITION_MILLISECONDS = 60_000
#: A batch's call waits this long in its thread for its own turn, which is reserved then.
_LONGEST_WAIT_FOR_SHARE_SECONDS = 1.0
#: Later turns are spread over so many seconds; whoever finds them full comes back by chance.
_SPREAD_OF_SHARE_SECONDS = 20.0
_MICROSECONDS = 1_000_000
_SECONDS_PER_MINUTE = 60

#: The script's reply where only the turn among the batch's calls is reserved.
_ONLY_SHARED = 2
_WAITS_FOR_SHARE = tuple(int(s * _MICROSECONDS) for s in (_LONGEST_WAIT_FOR_SHARE_SECONDS, _SPREAD_OF_SHARE_SECONDS))

GateReason = Literal["retry_after", "account"]
Reason = Literal["requests", "tokens", "retry_after", "account", "share", ""]


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """What a model's provider allows, and how long callers wait for it.

    Attributes:
        requests_per_second: The most requests of the whole fleet; None for no limit.
        burst_requests: How many of them may be sent at once.
        tokens_per_minute: The pace of the whole fleet's tokens; None for no limit.
        longest_wait_seconds: A caller whose turn is later reserves nothing.
        max_retry_after_seconds: The longest closing for a 429.
        account_pause_seconds: The first closing for an account that is refused or used up.
        max_account_pause_seconds: The longest of those.
    """

    requests_per_second: float | None
    burst_requests: int
    tokens_per_minute: int | None
    longest_wait_seconds: float
    max_retry_after_seconds: float
    account_pause_seconds: float
    max_account_pause_seconds: float

    @classmethod
    def of(cls, settings: Settings, model: Model) -> Self:
        """Return a model's policy, of its own table and ``[rate_limit]``."""
        common = settings.rate_limit
        return cls(
            requests_per_second=model.requests_per_second,
            burst_requests=model.burst_requests,
            tokens_per_minute=model.tokens_per_minute,
            longest_wait_seconds=common.longest_wait_seconds,
            max_retry_after_seconds=common.max_retry_after_seconds,
            account_pause_seconds=common.account_pause_seconds,
            max_account_pause_seconds=common.max_account_pause_seconds,
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """A call's turn, or that it has none.

    Attributes:
        is_reserved: Whether it has one.
        wait_seconds: When its turn is; without one, when to ask again.
        reason: What it waits for; empty where it does not wait.
        send_by: The local monotonic time after which it must not be sent.
        is_shared: Whether its turn among its batch's calls is reserved, and only that: once it has come, the call asks
            for its turn among all, as any other does.
    """

    is_reserved: bool
    wait_seconds: float
    reason: Reason
    send_by: float = math.inf
    is_shared: bool = False


#: Of a call that has not asked for one.
NO_TURN = Reservation(is_reserved=False, wait_seconds=0.0, reason="")


class Share(NamedTuple):
    """Whose share of a model's rate a call is to keep within, where that has one.

    Attributes:
        batch: The batch's id.
        alias: The key of the question's alias: a call that others wait for too does not wait for the batch's turn.
    """

    batch: str
    alias: str


@dataclass(frozen=True, slots=True)
class Gate:
    """A model's gate.

    Attributes:
        closed_seconds: How long it stays closed; 0 where it is open.
        reason: Why; empty where it is open.
    """

    closed_seconds: float
    reason: Reason


class RateLimiter:
    """A model's rate limit and gate.

    A caller reserves, waits for its turn, looks again where it has waited, asks whether it is late, and sends. Where
    the gate has closed meanwhile, or it is late, it reserves anew. A call that is not sent in the end gives its tokens
    back: ``correct(reserved, 0)``.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: What its provider allows. Without limits only the gate counts.

    Attributes:
        late_seconds: How long after its slot a call may be sent.
    """

    def __init__(self, client: redis.Redis, model_name: str, policy: RateLimitPolicy) -> None:
        self._client = client
        self._model_name = model_name
        self._policy = policy
        self._key = RATE_PREFIX + model_name
        names = ("reserve", "look", "correct", "close", "succeed", "reset")
        self._scripts = {name: load_script(client, "dspyq.guards", f"rate_{name}") for name in names}
        rate, pace = policy.requests_per_second, policy.tokens_per_minute
        self._request_interval = math.ceil(_MICROSECONDS / (rate * (1 - _MARGIN))) if rate else 0
        self.late_seconds = _late_seconds(rate) if rate else math.inf
        self._clock = RedisClock()
        self._token_interval = _SECONDS_PER_MINUTE * _MICROSECONDS / pace if pace else 0.0
        self._closings_grow = False

    def reserve(
        self, tokens: int, share: Share | None = None, *, longest_wait_seconds: float | None = None
    ) -> Step[Reservation]:
        """Return a step that reserves a call's turn: its request, its tokens and an open gate, or nothing.

        Args:
            tokens: The most it may use; ``correct`` settles the difference. 0 for a call that was late: its tokens are
                reserved already.
            share: The share of the rate to keep within; None for a call that has none, or had its turn in that.
            longest_wait_seconds: Where the caller has less time than the policy's.
        """
        longest = self._policy.longest_wait_seconds
        if longest_wait_seconds is not None:
            longest = min(longest, longest_wait_seconds)
        asked_at = time.monotonic()
        arguments: tuple[float, ...] = (
            self._request_interval,
            self._policy.burst_requests,
            self._token_interval,
            tokens,
            int(longest * _MICROSECONDS),
        )
        keys: tuple[str, ...] = (self._key,)
        if share is not None:
            keys = (self._key, *self._keys_of_batch(share.batch), share.alias)
            arguments += _WAITS_FOR_SHARE
        return self._scripts["reserve"].step(lambda reply: self._reservation(reply, asked_at), keys, arguments)

    def is_late(self, reservation: Reservation) -> bool:
        """Whether a call's turn has passed: it must not be sent, but reserve anew. Asked at last, before it is sent."""
        return time.monotonic() > reservation.send_by

    def look_again(self) -> Step[float]:
        """Return a step that says how long the gate is closed now, for a caller that has waited for its turn."""
        return self._scripts["look"].step(lambda reply: self._gate(reply).closed_seconds, (self._key,))

    def gate(self) -> Gate:
        """Look at the gate. One round trip."""
        gate: Gate = run_together(self._client, [self._scripts["look"].step(self._gate, (self._key,))])[0]
        return gate

    def correct(self, reserved_tokens: int, used_tokens: int, batch: str = "") -> Step[None] | None:
        """Return a step that gives back the tokens a call did not use, or takes those it used beyond.

        Args:
            reserved_tokens: Those that were reserved.
            used_tokens: Those that it used.
            batch: The call's batch, whose share they are of too.

        Returns:
            None where there is nothing to correct.
        """
        difference = used_tokens - reserved_tokens
        if not self._token_interval or not difference:
            return None
        keys = (self._key, f"{self._key}:corrected:{uuid.uuid4().hex}", *(self._keys_of_batch(batch) if batch else ()))
        arguments = (self._token_interval, difference, _REPETITION_MILLISECONDS)
        return self._scripts["correct"].step(_nothing, keys, arguments)

    def close(self, reason: GateReason, seconds: float | None = None) -> float:
        """Close the gate for everyone. One round trip.

        Args:
            reason: ``retry_after``: a 429; ``account``: the account is refused or used up.
            seconds: How long, as the provider said; None for the default, which doubles until a call succeeds.

        Returns:
            How long it is closed now, in seconds.
        """
        policy = self._policy
        default, longest = (
            (policy.account_pause_seconds, policy.max_account_pause_seconds)
            if reason == "account"
            else (_RETRY_AFTER_SECONDS, policy.max_retry_after_seconds)
        )
        stated = "" if seconds is None else _microseconds(seconds)
        arguments = (uuid.uuid4().hex, reason, stated, _microseconds(default), _microseconds(longest))
        left, is_new = self._scripts["close"]((self._key,), arguments)
        self._closings_grow = True
        closed_seconds = float(left) / _MICROSECONDS
        if is_new:
            logger.warning(
                Event("gate_closed", model=self._model_name, closed_seconds=round(closed_seconds, 1), reason=reason)
            )
        return closed_seconds

    def succeeded(self) -> Step[None] | None:
        """Return a step that ends the doubling of closings; None where Redis's last reply knew of none."""
        return self._scripts["succeed"].step(_nothing, (self._key,)) if self._closings_grow else None

    def reset(self) -> bool:
        """Open the gate, and end the doubling. One round trip.

        Returns:
            Whether it was closed.
        """
        was_closed = bool(self._scripts["reset"]((self._key,)))
        if was_closed:
            logger.warning(Event("gate_opened", model=self._model_name, reason="by an operator"))
        return was_closed

    def _keys_of_batch(self, batch: str) -> tuple[str, str]:
        """Its account, which says its share, and its own pace at this model."""
        return account_key(batch), f"{self._key}:batch:{batch}"

    def _reservation(self, reply: list[Any], asked_at: float) -> Reservation:
        what, wait, reason, closings_grow, now = reply
        self._closings_grow = bool(closings_grow)
        replied_at = time.monotonic()
        due_at = self._clock.local(now / _MICROSECONDS, asked_at, replied_at) + wait / _MICROSECONDS
        wait_seconds = max(0.0, due_at - replied_at) if wait else 0.0
        return Reservation(what == 1, wait_seconds, _reason(reason), due_at + self.late_seconds, what == _ONLY_SHARED)

    def _gate(self, reply: list[Any]) -> Gate:
        left, reason, closings_grow = reply
        self._closings_grow = bool(closings_grow)
        return Gate(left / _MICROSECONDS, _reason(reason))


def _late_seconds(rate: float) -> float:
    """Return how late calls may be sent so that no second has more than the rate and the burst.

    Those sent within a second have slots within that second and the lateness before it, and GCRA gives out at most
    (1 + lateness) * given rate + burst slots in that, rounded down.
    """
    given_rate = rate * (1 - _MARGIN)
    return min(_MOST_LATE_SECONDS, 0.99 * ((math.floor(rate) + 1) / given_rate - 1))


def _microseconds(seconds: float) -> int:
    return math.ceil(max(0.0, seconds) * _MICROSECONDS)


def _reason(reply: bytes | str) -> Reason:
    return reply.decode() if isinstance(reply, bytes) else reply  # type: ignore[return-value]  # scripts know no other


def _nothing(reply: Any) -> None:
    del reply
