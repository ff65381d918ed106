"""Rate limit of a model over the whole fleet: each call reserves its turn in Redis and waits for it in its thread.

A turn is a slot of GCRA (a token bucket that stores one time), so callers are served in the order in which they came.
The script that reserves it looks at the provider's gate too (``dspyq.guards.provider_gate``), in the same hash.

**As sent, not as reserved.** A thread wakes late when its machine is busy, and those that wake together send in a
clump. So slots are given out a little slower than the limit, and what is kept back pays for waking late: up to
``late_seconds`` after its slot, a call cannot carry any second over the limit. One that is later (``is_late``) must not
be sent, and reserves anew; its slot is lost. Slots are times of Redis's clock, so a slow reply makes no call late.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import redis

from dspyq.config.models import Model
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.guards.provider_gate import GatePolicy, ProviderGate
from dspyq.guards.redis_clock import RedisClock
from dspyq.store.keys import batch_account_key, key
from dspyq.store.scripts import Step, load_script

logger = logging.getLogger("dspyq.rate_limit")

#: Fraction of the limit that is kept in reserve.
_MARGIN = 0.03
#: The most that a call may be late, however slow the rate.
_MOST_LATE_SECONDS = 0.5
#: A batch's call waits this long in its thread for its own turn, which is reserved then.
_LONGEST_WAIT_FOR_SHARE_SECONDS = 1.0
#: Later turns are spread over so many seconds; a job that finds them full returns after a random time.
_SPREAD_OF_SHARE_SECONDS = 20.0
_MICROSECONDS = 1_000_000
_SECONDS_PER_MINUTE = 60

#: The script's reply where only the turn among the batch's calls is reserved.
_ONLY_SHARED = 2
_WAITS_FOR_SHARE = {
    "share_wait": int(_LONGEST_WAIT_FOR_SHARE_SECONDS * _MICROSECONDS),
    "share_spread": int(_SPREAD_OF_SHARE_SECONDS * _MICROSECONDS),
}

Reason = Literal["requests", "tokens", "retry_after", "account", "share", ""]


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """Rate that a model's provider allows, and the longest waits of callers.

    Attributes:
        requests_per_second: The most requests of the whole fleet; None for no limit.
        burst_requests: Number of them that may be sent at once.
        tokens_per_minute: The pace of the whole fleet's tokens; None for no limit.
        longest_wait_seconds: A caller whose turn is later reserves nothing.
        gate: Lengths of the provider's gate.
    """

    requests_per_second: float | None
    burst_requests: int
    tokens_per_minute: int | None
    longest_wait_seconds: float
    gate: GatePolicy

    @classmethod
    def of(cls, settings: Settings, model: Model) -> Self:
        """Return a model's policy, of its own table and ``[rate_limit]``."""
        return cls(
            requests_per_second=model.requests_per_second,
            burst_requests=model.burst_requests,
            tokens_per_minute=model.tokens_per_minute,
            longest_wait_seconds=settings.rate_limit.longest_wait_seconds,
            gate=GatePolicy.of(settings),
        )


@dataclass(frozen=True, slots=True)
class Reservation:
    """A call's turn, or the reason it has none.

    Attributes:
        is_reserved: True if it has a turn.
        wait_seconds: Seconds until its turn; without one, until the next try.
        reason: The limit it waits for; empty if it does not wait.
        send_by: The local monotonic time after which it must not be sent.
        is_shared: True if only its turn among its batch's calls is reserved: when that has come, the call reserves its
            turn among all calls, as any other does.
    """

    is_reserved: bool
    wait_seconds: float
    reason: Reason
    send_by: float = math.inf
    is_shared: bool = False


#: For a call of a model without a limit, whose gate was seen open a moment ago.
TURN_AT_ONCE = Reservation(is_reserved=True, wait_seconds=0.0, reason="")
#: For a call that has not reserved one.
NO_TURN = Reservation(is_reserved=False, wait_seconds=0.0, reason="")


class Share(NamedTuple):
    """Batch whose share of a model's rate limits a call, if the batch has a share.

    Attributes:
        batch: The batch's id.
        joined: Number of others that wait for the call's answer: with any, it does not wait for the batch's turn.
    """

    batch: str
    joined: int = 0


class RateLimiter:
    """A model's rate limit, and its gate.

    A caller reserves, waits for its turn, checks the gate again if it has waited, checks ``is_late``, and sends. If
    the gate has closed meanwhile, or the call is late, it reserves anew. A call that is never sent returns its tokens:
    ``correct(reserved, 0)``.

    Args:
        client: Redis.
        model_name: The model's table.
        policy: Rate that its provider allows. Without limits only the gate applies.

    Attributes:
        gate: The gate of its provider.
        has_limit: Whether there is a limit of requests or tokens; without one only the gate applies.
        late_seconds: Seconds after its slot within which a call may be sent.
    """

    def __init__(self, client: redis.Redis, model_name: str, policy: RateLimitPolicy) -> None:
        self.gate = ProviderGate(client, model_name, policy.gate)
        self._model_name = model_name
        self._policy = policy
        self._key = key(f"rate:{model_name}")
        self._reserve, self._correct = (
            load_script(client, "dspyq.guards", f"rate_{name}") for name in ("reserve", "correct")
        )
        rate, pace = policy.requests_per_second, policy.tokens_per_minute
        self._request_interval = math.ceil(_MICROSECONDS / (rate * (1 - _MARGIN))) if rate else 0
        self.late_seconds = _late_seconds(rate) if rate else math.inf
        self._clock = RedisClock()
        self._token_interval = _SECONDS_PER_MINUTE * _MICROSECONDS / pace if pace else 0.0
        self.has_limit = bool(self._request_interval or self._token_interval)

    def reserve(
        self, tokens: int, share: Share | None = None, *, longest_wait_seconds: float | None = None
    ) -> Step[Reservation]:
        """Return a step that reserves a call's turn: its request, its tokens and an open gate, or nothing.

        Args:
            tokens: The most it may use; ``correct`` settles the difference. 0 for a call that was late: its tokens are
                reserved already.
            share: The share of the rate to keep within; None for a call that has none, or had its turn in that.
            longest_wait_seconds: The caller's time, if less than the policy's.
        """
        longest = self._policy.longest_wait_seconds
        if longest_wait_seconds is not None:
            longest = min(longest, longest_wait_seconds)
        asked_at = time.monotonic()
        keys: tuple[str, ...] = (self._key,)
        of_batch: dict[str, int] = {}
        if share is not None:
            keys = (self._key, *self._keys_of_batch(share.batch))
            of_batch = {**_WAITS_FOR_SHARE, "joined": share.joined}
        return self._reserve.step(
            lambda reply: self._reservation(reply, asked_at),
            keys,
            interval=self._request_interval,
            burst=self._policy.burst_requests,
            per_token=self._token_interval,
            tokens=tokens,
            longest_wait=int(longest * _MICROSECONDS),
            **of_batch,
        )

    @property
    def lets_pass(self) -> bool:
        """Return True if there is nothing to reserve now: no limit, and a gate that was open a moment ago."""
        return not self.has_limit and self.gate.is_fresh

    def is_late(self, reservation: Reservation) -> bool:
        """Return True if a call's turn has passed, so that it must reserve anew. Check this last, before sending."""
        return time.monotonic() > reservation.send_by

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
        return self._correct.step(_nothing, keys, per_token=self._token_interval, difference=difference)

    def _keys_of_batch(self, batch: str) -> tuple[str, str]:
        """Return the keys of the batch's account, which holds its share, and of its rate at this model."""
        return batch_account_key(batch), f"{self._key}:batch:{batch}"

    def _reservation(self, reply: list[Any], asked_at: float) -> Reservation:
        what, wait, reason, awaits_success, now, is_damaged = reply
        if is_damaged:
            logger.warning(Event("rate_limit_begun_anew", model=self._model_name, reason="what Redis had was damaged"))
        self.gate.note(awaits_success=bool(awaits_success), open_at=None if wait else asked_at)
        replied_at = time.monotonic()
        due_at = self._clock.local(now / _MICROSECONDS, asked_at, replied_at) + wait / _MICROSECONDS
        wait_seconds = max(0.0, due_at - replied_at) if wait else 0.0
        return Reservation(what == 1, wait_seconds, _reason(reason), due_at + self.late_seconds, what == _ONLY_SHARED)


def _late_seconds(rate: float) -> float:
    """Return the most lateness at which no second has more than the rate and the burst.

    Those sent within a second have slots within that second and the lateness before it, and GCRA gives out at most
    (1 + lateness) * given rate + burst slots in that, rounded down.
    """
    given_rate = rate * (1 - _MARGIN)
    return min(_MOST_LATE_SECONDS, 0.99 * ((math.floor(rate) + 1) / given_rate - 1))


def _reason(reply: bytes | str) -> Reason:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return text if text in get_args(Reason) else "retry_after"  # type: ignore[return-value]  # it is one of them


def _nothing(reply: Any) -> None:
    del reply
