"""The keys in a server process: verified from its memory as long as no change of them can be missed.

A key that was looked up is remembered for a minute, by its id, and dropped when a change of it is announced. While the
connection that brings announcements is silent for longer than a missed heartbeat, the key of each request is read from
Redis. So a revoked key is refused by every process within a second. An id that is not there is remembered for some
seconds, so that guesses do not become a load on Redis; keys that are needed at the same time share a round trip.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping

from cachetools import TTLCache

from dspyq.api_keys.form import read_key_id, sha256_of
from dspyq.api_keys.record import KeyRecord
from dspyq.api_keys.store import read_records
from dspyq.cache.fleet_channels import fleet_channels
from dspyq.client.off_loop import off_loop
from dspyq.config.key_grants import KeyGrant
from dspyq.config.settings import get_settings
from dspyq.errors import RedisUnavailable
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import key_changes_channel

_KNOWN_SECONDS, _UNKNOWN_SECONDS = 60.0, 5.0
_MOST_KNOWN = _MOST_UNKNOWN = 10_000
#: The record of a key that is not there: no hash has its form.
_NO_KEY = KeyRecord("", "", "", "-" * 64, KeyGrant(programs=(), can=()), previous_sha256="-" * 64, revoked_at=0.0)


class KnownKeys:
    """The keys in one process's memory. Its event loop alone verifies; changes come in another thread.

    Args:
        stated: The keys that the configuration file states, by their hashes.
        on_change: Called with the id of a changed key, or with None where changes may have been missed.
    """

    def __init__(self, stated: Mapping[str, KeyRecord], on_change: Callable[[str | None], object]) -> None:
        self._stated = stated
        self._on_change = on_change
        self._lock = threading.Lock()
        self._known: TTLCache[str, KeyRecord] = TTLCache(_MOST_KNOWN, _KNOWN_SECONDS, time.monotonic)
        self._unknown: TTLCache[str, None] = TTLCache(_MOST_UNKNOWN, _UNKNOWN_SECONDS, time.monotonic)
        self._changes = 0
        self._asked: dict[str, asyncio.Future[KeyRecord | None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._cache = fleet_channels()
        self._followed = self._cache.follow(key_changes_channel(), self._receive)

    @property
    def is_trusted(self) -> bool:
        """True while no change of a key can be missed."""
        return self._followed.is_confirmed and self._cache.is_trusted

    async def verify(self, text: str) -> KeyRecord | None:
        """Return the key that a caller sent; None for one that is unknown, wrong, revoked or expired.

        Which of these it is shows neither in the answer nor in its time.

        Args:
            text: The whole key, as it was sent.

        Raises:
            RedisUnavailable: If Redis had to be asked, and did not answer.
        """
        key_id = read_key_id(text)
        if key_id is None:
            return None
        sha256 = sha256_of(text)
        found = self._stated.get(sha256) or await self._find(key_id)
        is_good = (found or _NO_KEY).accepts(sha256, time.time())
        return found if is_good else None

    async def _find(self, key_id: str) -> KeyRecord | None:
        with self._lock:
            if key_id in self._unknown:
                return None
            known = self._known.get(key_id) if self.is_trusted else None
        return known or await self._look_up(key_id)

    async def _look_up(self, key_id: str) -> KeyRecord | None:
        """Look a key up, together with all others that are asked for until the next round trip begins."""
        if key_id not in self._asked:
            self._asked[key_id] = asyncio.get_running_loop().create_future()
        asked = self._asked[key_id]
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read_asked())
        seconds = get_settings().redis_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(asked)
        except TimeoutError:
            raise RedisUnavailable(
                f"Redis has not answered within redis_timeout_seconds, {seconds:g} s: check DSPYQ_REDIS_URL"
            ) from None

    async def _read_asked(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                changes = self._changes
                try:
                    records = await off_loop(_read, list(asked))
                except Exception as error:  # noqa: BLE001 - those who wait for it raise it
                    for waiting in asked.values():
                        _fail(waiting, error)
                    continue
                for (key_id, waiting), record in zip(asked.items(), records, strict=True):
                    self._remember(key_id, record, changes)
                    if not waiting.done():
                        waiting.set_result(record)
        finally:
            self._reading = None

    def _remember(self, key_id: str, record: KeyRecord | None, changes: int) -> None:
        """Keep a key, unless any key was changed since it was read."""
        with self._lock:
            if changes != self._changes:
                return
            if record is None:
                self._unknown[key_id] = None
            elif self.is_trusted:
                self._known[key_id] = record

    def _receive(self, message: bytes | None) -> None:
        key_id = None if message is None else message.decode("ascii", "replace")
        with self._lock:
            self._changes += 1
            if key_id is None:
                self._known.clear()
                self._unknown.clear()
            else:
                self._known.pop(key_id, None)
                self._unknown.pop(key_id, None)
        self._on_change(key_id)


def _read(key_ids: list[str]) -> list[KeyRecord | None]:
    with redis_errors("verify the key"):
        return read_records(money_client(), key_ids)


def _fail(waiting: asyncio.Future[KeyRecord | None], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # the one who waited may be gone
