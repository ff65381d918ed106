"""L1: the answers a process keeps in its own memory, and how it hears that they are no longer good.

A value is kept as the bytes Redis held, so no caller can change it for another. What another process invalidates
reaches this one over a Redis channel; while that channel is silent for longer than a missed heartbeat, the cache is
bypassed, and what it held is dropped when the channel is back.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple, Required, TypedDict, Unpack

import redis
from cachetools import TLRUCache

from dspyq.cache.claims import (
    CACHE_STATISTICS,
    COSTS_PREFIX,
    EVERYTHING,
    INVALIDATIONS,
    KEEP_COSTS_SECONDS,
    STATISTICS_PREFIX,
)
from dspyq.config.periods import process_calendar
from dspyq.config.sections import Cache
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.store.clients import connect

logger = logging.getLogger("dspyq.cache")

_PING_SECONDS = 0.25
#: With a silent channel an invalidation may be missed; this bounds for how long, and stays under the second promised.
_TRUSTED_SECONDS = 0.75
_RECONNECT_SECONDS = 0.5
#: An invalidation is remembered so long, to refuse values read before it. Values read earlier are refused outright.
_REMEMBERED_SECONDS = 600.0
_FLUSH_SECONDS = 1.0


@dataclass(frozen=True)
class Entry:
    """An answer in memory.

    Attributes:
        task_id: The task that answered.
        payload: The result as Celery stored it.
        expires_at: The monotonic second after which it is not served.
        cost_nano_usd: What it cost, which each hit saves.
    """

    task_id: str
    payload: bytes
    expires_at: float
    cost_nano_usd: int = 0


class Counts(NamedTuple):
    """What a memory cache did.

    Attributes:
        hits: By the queue of the asking variant.
        avoided_nano_usd: What those would have cost, by queue.
        evictions: Answers that left for want of room.
    """

    hits: Counter[str]
    avoided_nano_usd: Counter[str]
    evictions: int


class Totals(NamedTuple):
    """A memory cache since it was made.

    Attributes:
        hits: Answers it gave.
        evictions: Answers that left for want of room.
        entries: Answers it holds.
        size_bytes: Their bytes.
    """

    hits: int
    evictions: int
    entries: int
    size_bytes: int


class MemoryCache:
    """A bounded LRU cache with a time to live for each entry, safe between threads."""

    def __init__(self, settings: Cache) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._entries: TLRUCache[str, Entry] = TLRUCache(
            maxsize=settings.memory_bytes,
            ttu=lambda _key, entry, _now: entry.expires_at,
            timer=time.monotonic,
            getsizeof=lambda entry: len(entry.payload),
        )
        self._invalidated_at: dict[str, float] = {}
        self._cleared_at = 0.0
        self._hits: Counter[str] = Counter()
        self._avoided_nano_usd: Counter[str] = Counter()
        self._evictions = 0
        self._hits_told = self._evictions_told = 0

    def get(self, input_hash: str, queue: str) -> Entry | None:
        """Return an answer, if there is a good one, and count it for a variant's queue."""
        with self._lock:
            try:
                entry: Entry = self._entries[input_hash]
            except KeyError:
                return None
            self._hits[queue] += 1
            self._avoided_nano_usd[queue] += entry.cost_nano_usd
            return entry

    def put(  # noqa: PLR0913 - what is known of an answer
        self,
        input_hash: str,
        task_id: str,
        payload: bytes,
        *,
        seconds_left: float,
        read_at: float,
        cost_nano_usd: int = 0,
    ) -> None:
        """Keep an answer.

        Args:
            input_hash: Its question.
            task_id: The task that answered.
            payload: The result as Celery stored it.
            seconds_left: How long Redis serves it.
            read_at: The monotonic second before which it was not asked for: an invalidation since then forbids it.
            cost_nano_usd: What it cost; 0 where that is unknown.
        """
        now = time.monotonic()
        ttl_seconds = min(seconds_left, self._settings.memory_ttl_seconds)
        if len(payload) > self._settings.memory_bytes or ttl_seconds <= 0 or now - read_at > _REMEMBERED_SECONDS:
            return
        with self._lock:
            if read_at <= max(self._cleared_at, self._invalidated_at.get(input_hash, 0.0)):
                return
            before = len(self._entries) + (input_hash not in self._entries)
            self._entries[input_hash] = Entry(task_id, payload, now + ttl_seconds, cost_nano_usd)
            while len(self._entries) > self._settings.memory_entries:
                self._entries.popitem()
            self._evictions += before - len(self._entries)

    def invalidate(self, input_hash: str) -> None:
        """Drop an answer, and refuse those that were read before now."""
        now = time.monotonic()
        with self._lock:
            self._entries.pop(input_hash, None)
            self._invalidated_at[input_hash] = now
            if len(self._invalidated_at) > self._settings.memory_entries:
                horizon = now - _REMEMBERED_SECONDS
                self._invalidated_at = {key: at for key, at in self._invalidated_at.items() if at > horizon}

    def clear(self) -> None:
        """Drop every answer, and refuse those that were read before now."""
        with self._lock:
            self._entries.clear()
            self._invalidated_at.clear()
            self._cleared_at = time.monotonic()

    def take_counts(self) -> Counts:
        """Return what was counted since the last time."""
        with self._lock:
            counts = Counts(self._hits, self._avoided_nano_usd, self._evictions)
            self._hits, self._avoided_nano_usd, self._evictions = Counter(), Counter(), 0
            self._hits_told += counts.hits.total()
            self._evictions_told += counts.evictions
            return counts

    def give_back_counts(self, counts: Counts) -> None:
        """Take counts back that could not be stored."""
        with self._lock:
            self._hits.update(counts.hits)
            self._avoided_nano_usd.update(counts.avoided_nano_usd)
            self._evictions += counts.evictions
            self._hits_told -= counts.hits.total()
            self._evictions_told -= counts.evictions

    def totals(self) -> Totals:
        """Return what it holds, and what it did since it was made."""
        with self._lock:
            return Totals(
                hits=self._hits_told + self._hits.total(),
                evictions=self._evictions_told + self._evictions,
                entries=len(self._entries),
                size_bytes=int(self._entries.currsize),
            )

    def __len__(self) -> int:
        """Return the number of answers held."""
        with self._lock:
            return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """The bytes of the answers held."""
        with self._lock:
            return int(self._entries.currsize)


class _Kept(TypedDict, total=False):
    """The options of ``MemoryCache.put``."""

    seconds_left: Required[float]
    read_at: Required[float]
    cost_nano_usd: int


class CoherentCache:
    """A process's memory cache together with its ear for invalidations; its hits are counted in Redis each second."""

    def __init__(self, url: str, settings: Cache) -> None:
        self.memory = MemoryCache(settings)
        self._client = connect(url)
        self._heard_at = float("-inf")
        self._process_id = os.getpid()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="dspyq-invalidations", daemon=True)
        self._thread.start()

    @property
    def is_trusted(self) -> bool:
        """Whether an invalidation would have been heard."""
        return time.monotonic() - self._heard_at < _TRUSTED_SECONDS

    def get(self, input_hash: str, queue: str) -> Entry | None:
        """Return an answer, if there is one that no one can have invalidated unheard.

        Args:
            input_hash: The question.
            queue: The asking variant's queue, whose statistics count the hit.
        """
        return self.memory.get(input_hash, queue) if self.is_trusted else None

    def put(self, input_hash: str, task_id: str, payload: bytes, **options: Unpack[_Kept]) -> None:
        """Keep an answer, as ``MemoryCache.put`` does, unless an invalidation might have been missed."""
        if self.is_trusted:
            self.memory.put(input_hash, task_id, payload, **options)

    def invalidate(self, input_hash: str) -> None:
        """Forget an answer here at once; other processes hear of it by the claims."""
        self.memory.invalidate(input_hash)

    def close(self) -> None:
        """Stop listening and count what is not counted yet; in a forked child, where nothing listens, do nothing."""
        if os.getpid() != self._process_id:
            return
        self._stopped.set()
        self._thread.join(timeout=2 * _TRUSTED_SECONDS)
        try:
            self._flush()
        except redis.RedisError as error:
            logger.warning(Event("memory_cache_hits_not_counted", error=type(error).__name__))

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen_once()
            except (redis.RedisError, OSError) as error:
                logger.warning(Event("memory_cache_bypassed", error=type(error).__name__))
            self._heard_at = float("-inf")
            self._stopped.wait(_RECONNECT_SECONDS)

    def _listen_once(self) -> None:
        with self._client.pubsub() as channel:
            channel.subscribe(INVALIDATIONS)
            pinged_at = flushed_at = 0.0
            while not self._stopped.is_set():
                now = time.monotonic()
                if now - pinged_at >= _PING_SECONDS:
                    channel.ping()
                    pinged_at = now
                if now - flushed_at >= _FLUSH_SECONDS:
                    self._flush()
                    flushed_at = now
                message = channel.get_message(timeout=_PING_SECONDS)
                if message is not None:
                    self._hear(message["type"], message["data"])

    def _hear(self, kind: str, data: bytes | int) -> None:
        if kind == "subscribe":
            self.memory.clear()
        elif kind == "message" and isinstance(data, bytes):
            heard = data.decode()
            if heard == EVERYTHING:
                self.memory.clear()
            else:
                self.memory.invalidate(heard)
        self._heard_at = time.monotonic()

    def _flush(self) -> None:
        counts = self.memory.take_counts()
        if not counts.hits and not counts.evictions:
            return
        books = COSTS_PREFIX + process_calendar().now().today
        try:
            pipeline = self._client.pipeline()
            for queue, number in counts.hits.items():
                pipeline.hincrby(STATISTICS_PREFIX + queue, "hits_memory", number)
            for queue, nano_usd in (+counts.avoided_nano_usd).items():
                pipeline.hincrby(books, f"{queue} avoided_nano_usd", nano_usd)
                pipeline.expire(books, KEEP_COSTS_SECONDS)
            pipeline.hincrby(CACHE_STATISTICS, "evictions", counts.evictions)
            pipeline.execute()
        except redis.RedisError:
            self.memory.give_back_counts(counts)
            raise


class _NoCache:
    """Stands in where ``cache.memory_entries`` is 0."""

    def get(self, input_hash: str, queue: str) -> None:
        """Return nothing."""

    def invalidate(self, input_hash: str) -> None:
        """Forget nothing."""

    def put(self, input_hash: str, task_id: str, payload: bytes, **options: Unpack[_Kept]) -> None:
        """Keep nothing."""


def process_totals() -> Totals:
    """Return those of this process's memory cache, without starting one."""
    cache = process_cache() if process_cache.cache_info().currsize else None
    return cache.memory.totals() if isinstance(cache, CoherentCache) else Totals(0, 0, 0, 0)


@functools.cache
def process_cache() -> CoherentCache | _NoCache:
    """Return this process's memory cache, started at its first use; a forked child gets one of its own."""
    settings = get_settings()
    if settings.cache.memory_entries == 0:
        return _NoCache()
    cache = CoherentCache(settings.jobs_url, settings.cache)
    atexit.register(cache.close)
    return cache


os.register_at_fork(after_in_child=process_cache.cache_clear)
