"""The rates of keys: a server process takes the turns of the next moment in one script, and gives them out from memory.

The limit holds over all processes: of any span of time, no more requests are let in than its rate and one burst allow.
Turns that a process took and did not use are lost. A turn is used up to a tenth of a second after it was taken, so
where turns are taken in advance, the burst in Redis is smaller by those of a tenth of a second.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import NamedTuple

from dspyq.client.off_loop import off_loop
from dspyq.config.key_grants import KeyGrant
from dspyq.config.settings import get_settings
from dspyq.errors import RedisUnavailable
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.scripts import load_script

_LEASE_SECONDS = 0.1
_MICROSECONDS = 1_000_000


class Turn(NamedTuple):
    """The outcome of a request for a turn.

    Attributes:
        wait_seconds: Time until the next turn; None where the request has one.
        left: Turns left at that moment, at the least.
        full_seconds: Time until all turns are back.
    """

    wait_seconds: float | None
    left: int
    full_seconds: float


class _Taken(NamedTuple):
    """The reply of the script."""

    turns: int
    left: int
    wait_seconds: float
    full_seconds: float


class _Pace(NamedTuple):
    """A rate, as it is asked for in Redis.

    Attributes:
        interval_microseconds: Time between two turns.
        burst: Turns that may be taken at once.
        ahead: Turns that may be taken in advance.
    """

    interval_microseconds: float
    burst: float
    ahead: int

    @classmethod
    def of(cls, grant: KeyGrant) -> _Pace:
        """Return that of a key with a rate."""
        rate, burst = grant.rate or 1.0, grant.burst_requests
        ahead = int(rate * _LEASE_SECONDS)
        if ahead < 1 or burst - rate * _LEASE_SECONDS < 1:
            return cls(_MICROSECONDS / rate, burst, 0)
        return cls(_MICROSECONDS / rate, burst - rate * _LEASE_SECONDS, ahead)


class _Turnstile:
    """The turns of one key in this process."""

    def __init__(self, key_id: str) -> None:
        self._key_id = key_id
        self._turns = 0
        self._good_until = 0.0
        self._closed_until = 0.0
        self._last = _Taken(0, 0, 0.0, 0.0)
        self._waiting: list[asyncio.Future[Turn]] = []
        self._taking: asyncio.Task[None] | None = None

    async def pass_through(self, grant: KeyGrant) -> Turn:
        """Return a turn, or the time until there is one.

        Raises:
            RedisUnavailable: If Redis had to be asked, and did not answer.
        """
        now = time.monotonic()
        if now < self._closed_until:
            return Turn(self._closed_until - now, 0, self._last.full_seconds)
        if self._turns and now < self._good_until:
            self._turns -= 1
            return Turn(None, self._turns + self._last.left, self._last.full_seconds)
        waiting: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        if self._taking is None:
            self._taking = asyncio.ensure_future(self._take(_Pace.of(grant)))
        seconds = get_settings().redis_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await waiting
        except TimeoutError:
            raise RedisUnavailable(
                f"Redis has not answered within redis_timeout_seconds, {seconds:g} s: check DSPYQ_REDIS_URL"
            ) from None

    async def _take(self, pace: _Pace) -> None:
        """Take turns for all that wait, and some in advance."""
        try:
            while self._waiting:
                waiting, self._waiting = [each for each in self._waiting if not each.done()], []
                if not waiting:
                    continue
                began_at = time.monotonic()
                try:
                    taken = await off_loop(_take, self._key_id, pace, len(waiting) + pace.ahead)
                except Exception as error:  # noqa: BLE001 - those who wait for it raise it
                    for each in waiting:
                        if not each.done():
                            each.set_exception(error)
                    continue
                self._give_out(waiting, taken, began_at)
        finally:
            self._taking = None

    def _give_out(self, waiting: list[asyncio.Future[Turn]], taken: _Taken, began_at: float) -> None:
        now = time.monotonic()
        self._last, self._turns, self._good_until = taken, taken.turns, began_at + _LEASE_SECONDS
        for each in waiting:
            if each.done():
                continue
            if self._turns:
                self._turns -= 1
                each.set_result(Turn(None, self._turns + taken.left, taken.full_seconds))
            else:
                each.set_result(Turn(taken.wait_seconds, 0, taken.full_seconds))
        if taken.left == 0 and taken.wait_seconds > 0:
            self._closed_until = (now + taken.wait_seconds) if not self._turns else 0.0


class Turnstiles:
    """The turns of all keys in this process. Its event loop alone takes them; changes come in another thread."""

    def __init__(self) -> None:
        self._by_key: dict[str, _Turnstile] = {}
        self._lock = threading.Lock()

    async def pass_through(self, key_id: str, grant: KeyGrant) -> Turn:
        """Return a turn of a key that has a rate, or the time until there is one.

        Raises:
            RedisUnavailable: If Redis had to be asked, and did not answer.
        """
        with self._lock:
            turnstile = self._by_key.get(key_id)
            if turnstile is None:
                turnstile = self._by_key[key_id] = _Turnstile(key_id)
        return await turnstile.pass_through(grant)

    def forget(self, key_id: str | None) -> None:
        """Forget the turns of a key that was changed, or those of all."""
        with self._lock:
            if key_id is None:
                self._by_key.clear()
            else:
                self._by_key.pop(key_id, None)


def _take(key_id: str, pace: _Pace, wanted: int) -> _Taken:
    with redis_errors("take the key's turn"):
        turns, left, wait, full = load_script(money_client(), "dspyq.api_keys", "take_turns")(
            id=key_id, interval=repr(pace.interval_microseconds), burst=repr(pace.burst), wanted=wanted
        )
    return _Taken(int(turns), int(left), wait / _MICROSECONDS, full / _MICROSECONDS)
