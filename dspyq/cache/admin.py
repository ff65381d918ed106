"""Looking after the cache: invalidating, clearing, counting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from dspyq.cache.claims import ALIAS_PREFIX, CACHE_STATISTICS, EVERYTHING, INVALIDATIONS, RESULT_PREFIX, process_claims
from dspyq.cache.statistics import variant_statistics
from dspyq.prediction.request import build_request, find_program, find_variant
from dspyq.store.clients import answers_client, jobs_client, redis_errors

_PAGE_KEYS = 1000


@dataclass(frozen=True)
class CacheStatistics:
    """The cache, over all producers and workers.

    Attributes:
        entries: Answers that Redis serves.
        size_bytes: Their bytes in Redis.
        hits_memory: Calls answered from a process's memory.
        hits_redis: Calls answered from Redis.
        joined: Calls answered by another's run.
        misses: Calls that began a run.
        evictions: Answers that left a process's memory for want of room.
    """

    entries: int
    size_bytes: int
    hits_memory: int
    hits_redis: int
    joined: int
    misses: int
    evictions: int


def invalidate(inputs: Mapping[str, Any], *, program: str | None = None, variant: str | None = None) -> int:
    """Forget the answers to one question.

    Args:
        inputs: The question's inputs.
        program: As of ``predict.apply_async``.
        variant: One variant's answer; left out, that of each.

    Returns:
        How many answers or runs under way were forgotten. No process serves them a second from now.

    Raises:
        InvalidRequest: If there can be no such question.
        RedisUnavailable: If Redis does not answer.
    """
    asked = find_program(program)
    variants = [find_variant(asked, variant).name] if variant else list(asked.variants)
    hashes = {build_request(inputs, program=asked.name, variant=name).input_hash for name in variants}
    with redis_errors("invalidate the answers"):
        return process_claims().invalidate(hashes)


def clear(*, program: str | None = None, variant: str | None = None) -> int:
    """Forget the answers of a program, of one of its variants, or all.

    Returns:
        How many were forgotten. No process serves them a second from now; who holds their task ids still gets them.

    Raises:
        UnknownProgram: If there is no such program.
        UnknownVariant: If it has no such variant.
        RedisUnavailable: If Redis does not answer.
    """
    if variant:
        find_variant(find_program(program), variant)
    wanted = find_program(program).name if program or variant else None
    client = jobs_client()
    cleared = 0
    with redis_errors("clear the cache"):
        for page in _pages():
            aliases = [alias for alias, held in page if _matches(held["queue"], wanted, variant)]
            if aliases:
                cleared += client.unlink(*aliases)
        client.publish(INVALIDATIONS, EVERYTHING)
    return cleared


def cache_statistics() -> CacheStatistics:
    """Return what the cache holds and what it did.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the cache's statistics"):
        entries, size_bytes = measure_cache()
        evictions = int(cast("bytes | None", jobs_client().hget(CACHE_STATISTICS, "evictions")) or 0)
    variants = variant_statistics()
    return CacheStatistics(
        entries=entries,
        size_bytes=size_bytes,
        hits_memory=sum(counts.hits_memory for counts in variants),
        hits_redis=sum(counts.hits_redis for counts in variants),
        joined=sum(counts.joined for counts in variants),
        misses=sum(counts.misses for counts in variants),
        evictions=evictions,
    )


def measure_cache() -> tuple[int, int]:
    """Return how many answers Redis serves, and their bytes; it looks at each, a page at a time.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    entries = size_bytes = 0
    for page in _pages():
        answered = [held["answered"] for _, held in page if held["answered"]]
        pipeline = answers_client().pipeline(transaction=False)
        for task_id in answered:
            pipeline.strlen(RESULT_PREFIX + task_id)
        sizes = [size for size in pipeline.execute() if size]
        entries += len(sizes)
        size_bytes += sum(sizes)
    return entries, size_bytes


def _pages() -> Iterator[list[tuple[bytes, dict[str, str | None]]]]:
    """Every alias with its queue and answering task, a page at a time; Redis serves others in between."""
    client = jobs_client()
    cursor = 0
    fields = ("queue", "answered")
    while True:
        cursor, aliases = cast(
            "tuple[int, list[bytes]]", client.scan(cursor, match=f"{ALIAS_PREFIX}*", count=_PAGE_KEYS)
        )
        pipeline = client.pipeline(transaction=False)
        for alias in aliases:
            pipeline.hmget(alias, fields)
        replies = pipeline.execute() if aliases else []
        held = [dict(zip(fields, (value and value.decode() for value in reply), strict=True)) for reply in replies]
        yield list(zip(aliases, held, strict=True))
        if cursor == 0:
            return


def _matches(queue: str | None, program: str | None, variant: str | None) -> bool:
    its_program, _, its_variant = (queue or "").partition(".")
    return (program is None or its_program == program) and (variant is None or its_variant == variant)
