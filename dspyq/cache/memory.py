"""L1 cache: answers in a process's own memory, with invalidation over a Redis channel.

Values are the bytes read from Redis, so no caller can change one for another. Invalidations by other processes arrive
over a Redis channel. While that channel is silent for longer than a missed heartbeat, the cache is bypassed; its
content is dropped when the channel is back.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import redis
from cachetools import TLRUCache

from dspyq.cache.followed_channels import FollowedChannel, FollowedChannels, Receiver
from dspyq.cache.memory_counts import CacheCounts, store_counts
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.runtime import current, in_all_runtimes, per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.experiments.known import ANNOUNCED, process_states
from dspyq.prediction.stored import answers_question
from dspyq.store.clients import connect
from dspyq.store.keys import (
    EVERYTHING,
    invalidations_channel,
)
from dspyq.store.spines import jobs_url, on_spine, process_spines

if TYPE_CHECKING:
    from dspyq.config.sections import CacheSection

logger = logging.getLogger("dspyq.cache")

#: Time between two looks at whether the channel of invalidations still brings something.
PING_SECONDS = 0.25
#: A silent channel may hide an invalidation; this bounds the time, within the second that the docs promise.
_TRUSTED_SECONDS = 0.75
_RECONNECT_SECONDS = 0.5
#: Time for which an invalidation is remembered, to refuse values read before it. Older reads are refused outright.
_REMEMBERED_SECONDS = 600.0
#: Number of invalidations remembered; the time of the latest dropped one stands for all dropped ones.
_MOST_REMEMBERED = 10_000
#: No input hash is longer.
_LONGEST_HASH_BYTES = 128
_FLUSH_SECONDS = 1.0


@dataclass(frozen=True)
class CachedAnswer:
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


class FreshAnswer(NamedTuple):
    """An answer that was read.

    Attributes:
        task_id: The task that answered.
        payload: The result as Celery stored it.
        seconds_left: How long Redis serves it.
        read_at: The monotonic second at which its read began; an invalidation since then refuses it.
        cost_nano_usd: What it cost; 0 where that is unknown.
    """

    task_id: str
    payload: bytes
    seconds_left: float
    read_at: float
    cost_nano_usd: int = 0


class CacheTotals(NamedTuple):
    """Size of a memory cache, and its counts since it was made.

    Attributes:
        hits: Answers served.
        evictions: Answers evicted for lack of room.
        entries: Answers it holds.
        size_bytes: Their bytes.
    """

    hits: int
    evictions: int
    entries: int
    size_bytes: int


class MemoryCache:
    """A bounded LRU cache with a time to live for each entry, safe between threads."""

    def __init__(self, settings: CacheSection) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._entries: TLRUCache[str, CachedAnswer] = TLRUCache(
            maxsize=settings.memory_bytes,
            ttu=lambda _key, entry, _now: entry.expires_at,
            timer=time.monotonic,
            getsizeof=lambda entry: len(entry.payload),
        )
        self._invalidated_at: OrderedDict[str, float] = OrderedDict()
        self._refused_until = 0.0
        self._hits: Counter[str] = Counter()
        self._avoided_nano_usd: Counter[str] = Counter()
        self._avoided_by_tenant: Counter[str] = Counter()
        self._evictions = 0
        self._hits_told = self._evictions_told = 0

    def get(self, input_hash: str, queue: str, tenant: str = "") -> CachedAnswer | None:
        """Return an answer, if there is a good one, and count it for a variant's queue and a call's tenant."""
        with self._lock:
            try:
                entry: CachedAnswer = self._entries[input_hash]
            except KeyError:
                return None
            self._hits[queue] += 1
            self._avoided_nano_usd[queue] += entry.cost_nano_usd
            if tenant:
                self._avoided_by_tenant[tenant] += entry.cost_nano_usd
            return entry

    def put(self, input_hash: str, answer: FreshAnswer) -> None:
        """Keep the answer to a question, unless the question was invalidated since it was read."""
        payload, read_at = answer.payload, answer.read_at
        now = time.monotonic()
        ttl_seconds = min(answer.seconds_left, self._settings.memory_ttl_seconds)
        if len(payload) > self._settings.memory_bytes or ttl_seconds <= 0 or now - read_at > _REMEMBERED_SECONDS:
            return
        with self._lock:
            if read_at <= max(self._refused_until, self._invalidated_at.get(input_hash, 0.0)):
                return
            before = len(self._entries) + (input_hash not in self._entries)
            self._entries[input_hash] = CachedAnswer(answer.task_id, payload, now + ttl_seconds, answer.cost_nano_usd)
            while len(self._entries) > self._settings.memory_entries:
                self._entries.popitem()
            self._evictions += before - len(self._entries)

    def invalidate(self, input_hash: str) -> None:
        """Drop an answer, and refuse those that were read before now."""
        now = time.monotonic()
        with self._lock:
            self._entries.pop(input_hash, None)
            self._invalidated_at[input_hash] = now
            self._invalidated_at.move_to_end(input_hash)
            if len(self._invalidated_at) > _MOST_REMEMBERED:
                _, self._refused_until = self._invalidated_at.popitem(last=False)

    def clear(self) -> None:
        """Drop every answer, and refuse those that were read before now."""
        with self._lock:
            self._entries.clear()
            self._invalidated_at.clear()
            self._refused_until = time.monotonic()

    def take_counts(self) -> CacheCounts:
        """Return the counts since the last call, and reset them."""
        with self._lock:
            counts = CacheCounts(self._hits, self._avoided_nano_usd, self._avoided_by_tenant, self._evictions)
            self._hits, self._avoided_nano_usd, self._evictions = Counter(), Counter(), 0
            self._avoided_by_tenant = Counter()
            self._hits_told += counts.hits.total()
            self._evictions_told += counts.evictions
            return counts

    def give_back_counts(self, counts: CacheCounts) -> None:
        """Restore counts that could not be stored."""
        with self._lock:
            self._hits.update(counts.hits)
            self._avoided_nano_usd.update(counts.avoided_nano_usd)
            self._avoided_by_tenant.update(counts.avoided_by_tenant)
            self._evictions += counts.evictions
            self._hits_told -= counts.hits.total()
            self._evictions_told -= counts.evictions

    def totals(self) -> CacheTotals:
        """Return its size, and its counts since it was made."""
        with self._lock:
            return CacheTotals(
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


class CoherentCache:
    """A process's memory cache with its subscription to invalidations; its hits are counted in Redis each second.

    Attributes:
        memory: The answers.
        is_on: Whether it keeps any.
    """

    is_on = True

    def __init__(self, url: str, settings: CacheSection) -> None:
        self.memory = MemoryCache(settings)
        self._client = connect(url)
        self._followed = FollowedChannels()
        self._heard_at = float("-inf")
        self._process_id = os.getpid()
        self._runtime = current()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._runtime.bind(self._listen), name="dspyq-invalidations", daemon=True
        )
        self._thread.start()

    @property
    def own_channel(self) -> str:
        """The channel that it listens to from its start."""
        return invalidations_channel()

    @property
    def is_trusted(self) -> bool:
        """Return True while the invalidation channel is alive."""
        return time.monotonic() - self._heard_at < _TRUSTED_SECONDS

    def get(self, input_hash: str, queue: str, tenant: str = "") -> CachedAnswer | None:
        """Return the cached answer, or None without one or while the invalidation channel is down.

        Args:
            input_hash: The question.
            queue: The queue of the requested variant, whose statistics count the hit.
            tenant: The tenant of the call, whose savings count the hit; empty for none.
        """
        # As is_trusted has it, without a call.
        is_trusted = time.monotonic() - self._heard_at < _TRUSTED_SECONDS
        return self.memory.get(input_hash, queue, tenant) if is_trusted else None

    def put(self, input_hash: str, answer: FreshAnswer) -> None:
        """Keep an answer, as ``MemoryCache.put`` does, unless it is another question's or may be invalidated."""
        if self.is_trusted and answers_question(answer.payload, input_hash):
            self.memory.put(input_hash, answer)

    def invalidate(self, input_hash: str) -> None:
        """Forget an answer in this process at once; the claims notify other processes."""
        self.memory.invalidate(input_hash)

    def follow(self, channel: str, receive: Receiver) -> FollowedChannel:
        """Have a function called with the messages of another channel, which is as trusted as that of invalidations."""
        return self._followed.add(channel, receive)

    def close(self) -> None:
        """Stop listening and store the remaining counts; in a forked child, which has no thread, do nothing."""
        if os.getpid() != self._process_id:
            return
        self._stopped.set()
        self._thread.join(timeout=2 * _TRUSTED_SECONDS)
        try:
            with self._runtime.active():
                self._flush()
        except redis.RedisError as error:
            logger.warning(Event("memory_cache_hits_not_counted", error=type(error).__name__))

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen_once()
            except (redis.RedisError, OSError) as error:
                logger.warning(Event("memory_cache_bypassed", error=type(error).__name__))
            except Exception as error:  # noqa: BLE001 - without this thread the cache would be bypassed for good
                tolerate("invalidations_thread", error, is_fault=True)
            self._heard_at = float("-inf")
            self._followed.lose()
            self._stopped.wait(_RECONNECT_SECONDS)

    def _listen_once(self) -> None:
        with self._client.pubsub() as channel:
            channel.subscribe(self.own_channel)
            pinged_at = flushed_at = 0.0
            while not self._stopped.is_set():
                if new := self._followed.take_new():
                    channel.subscribe(*new)
                now = time.monotonic()
                if now - pinged_at >= PING_SECONDS:
                    channel.ping()
                    pinged_at = now
                if now - flushed_at >= _FLUSH_SECONDS:
                    self._flush()
                    flushed_at = now
                message = channel.get_message(timeout=PING_SECONDS)
                if message is not None and not self._followed.hear(message):
                    self._hear(message["type"], message["data"])

    def _hear(self, kind: str, data: bytes | int) -> None:
        if kind == "subscribe":
            self.memory.clear()
        elif kind == "message" and isinstance(data, bytes):
            if data == EVERYTHING.encode():
                self.memory.clear()
            elif data.startswith(ANNOUNCED):
                process_states().learn_announced(data)
            elif data.isalnum() and len(data) <= _LONGEST_HASH_BYTES:
                self.memory.invalidate(data.decode())
            else:
                tolerate("invalidation", "no_input_hash")
        self._heard_at = time.monotonic()

    def _flush(self) -> None:
        counts = self.memory.take_counts()
        if not counts.hits and not counts.evictions:
            return
        try:
            store_counts(self._client, counts)
        except redis.RedisError:
            self.memory.give_back_counts(counts)
            raise


class NoCache:
    """A cache without entries, for ``cache.memory_entries = 0``."""

    is_on = is_trusted = False

    def follow(self, channel: str, receive: Receiver) -> FollowedChannel:
        """Follow nothing: without a cache there is no connection that listens."""
        return FollowedChannel(channel, receive)

    def get(self, input_hash: str, queue: str, tenant: str = "") -> None:
        """Return nothing."""

    def invalidate(self, input_hash: str) -> None:
        """Forget nothing."""

    def put(self, input_hash: str, answer: FreshAnswer) -> None:
        """Keep nothing."""


def process_totals() -> CacheTotals:
    """Return those of this process's memory caches, of all its configurations, without starting one."""
    caches = [cache for cache in in_all_runtimes(process_cache) if isinstance(cache, CoherentCache)]
    totals = [cache.memory.totals() for cache in caches]
    return CacheTotals(*map(sum, zip(*totals, strict=True))) if totals else CacheTotals(0, 0, 0, 0)


def close_cache(cache: CoherentCache | NoCache) -> None:
    """End the thread of a memory cache."""
    if isinstance(cache, CoherentCache):
        atexit.unregister(cache.close)
        cache.close()


@per_runtime(is_of_part=True, close=close_cache)
def process_cache() -> CoherentCache | NoCache:
    """Return this process's memory cache, started at its first use; a forked child gets one of its own."""
    settings = get_settings()
    if settings.cache.memory_entries == 0:
        return NoCache()
    cache = CoherentCache(jobs_url(), settings.cache)
    atexit.register(cache.close)
    return cache


def cache_of(input_hash: str) -> CoherentCache | NoCache:
    """Return this process's memory cache for a question: that of its spine."""
    if process_spines() is None:  # as nearly always, and a block costs a hit more than this look
        return process_cache()
    with on_spine(input_hash):
        return process_cache()
