"""Counts of a process's memory cache, and how they are added to those of all processes."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import redis

from dspyq.config.periods import process_calendar
from dspyq.core.tolerated import tolerate
from dspyq.store.keys import (
    CACHE_STATISTICS,
    SECONDS_OF_BOOKS,
    key,
    month_of,
    savings_key,
    statistics_key,
    tenant_savings_key,
)


class CacheCounts(NamedTuple):
    """Counters of a memory cache.

    Attributes:
        hits: Hits, by the queue of the requested variant.
        avoided_nano_usd: Cost avoided by those, by queue.
        avoided_by_tenant: The same, by the tenant of the call, where it has one.
        evictions: Answers evicted for lack of room.
    """

    hits: Counter[str]
    avoided_nano_usd: Counter[str]
    avoided_by_tenant: Counter[str]
    evictions: int


def store_counts(client: redis.Redis, counts: CacheCounts) -> None:
    """Add counts to the statistics and savings in Redis.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    today = process_calendar().now().today
    savings = savings_key(today)
    pipeline = client.pipeline()
    for queue, number in counts.hits.items():
        pipeline.hincrby(statistics_key(queue), "hits_memory", number)
    for queue, nano_usd in (+counts.avoided_nano_usd).items():
        pipeline.hincrby(savings, f"{queue} avoided_nano_usd", nano_usd)
        pipeline.expire(savings, SECONDS_OF_BOOKS)
    for tenant, nano_usd in (+counts.avoided_by_tenant).items():
        own = tenant_savings_key(tenant, month_of(today))
        pipeline.hincrby(own, today, nano_usd)
        pipeline.expire(own, SECONDS_OF_BOOKS)
    pipeline.hincrby(key(CACHE_STATISTICS), "evictions", counts.evictions)
    for reply in pipeline.execute(raise_on_error=False):
        if isinstance(reply, Exception):  # a value that is no number is in its place; the others are counted
            tolerate("snapshot", reply)
