"""Administration of the cache: invalidate, clear, count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from dspyq.cache.claims import process_claims
from dspyq.cache.statistics import variant_statistics
from dspyq.core.tolerated import read_number
from dspyq.prediction.contract import contract_of
from dspyq.prediction.enrolment import scopes
from dspyq.prediction.request import find_program, find_variant, hash_inputs
from dspyq.prediction.tenants import check_tenant, owner_of_answer
from dspyq.store.clients import answers_client, jobs_client, redis_errors
from dspyq.store.keys import CACHE_STATISTICS, EVERYTHING, alias_key, invalidations_channel, key, result_key, stream_key
from dspyq.store.spines import by_owners, by_spine, on_each_spine

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
        evictions: Answers evicted from processes' memories for lack of room.
    """

    entries: int
    size_bytes: int
    hits_memory: int
    hits_redis: int
    joined: int
    misses: int
    evictions: int


def invalidate(
    inputs: Mapping[str, Any], *, program: str | None = None, variant: str | None = None, tenant: str | None = None
) -> int:
    """Forget the answers to one question, also those that an experiment keeps apart.

    Args:
        inputs: The question's inputs.
        program: As of ``predict.apply_async``.
        variant: One variant's answer; left out, that of each.
        tenant: Those that this tenant alone is served; left out, those of callers without a tenant.

    Returns:
        Number of answers or runs in progress forgotten. Within a second no process serves them.

    Raises:
        InvalidRequest: If there can be no such question.
        RedisUnavailable: If Redis does not answer.
    """
    asked = find_program(program)
    variants = [find_variant(asked, variant).name] if variant else list(asked.variants)
    canonical = contract_of(asked.name).canonical(inputs)
    owner = "" if tenant is None else owner_of_answer(asked, check_tenant(tenant))
    with redis_errors("invalidate the answers"):
        hashes = sorted({
            hash_inputs(asked.name, asked.fingerprints[name], canonical, scope, owner)
            for name in variants
            for scope in scopes(asked, name)
        })  # fmt: skip
        invalidated = 0
        for own in by_owners(hashes, hashes):
            invalidated += process_claims().invalidate(own)
        return invalidated


def clear(*, program: str | None = None, variant: str | None = None) -> int:
    """Forget the answers of a program, of one of its variants, or all.

    Returns:
        Number of answers forgotten. Within a second no process serves them; callers with their task ids still get them.

    Raises:
        UnknownProgram: If there is no such program.
        UnknownVariant: If it has no such variant.
        RedisUnavailable: If Redis does not answer.
    """
    if variant:
        find_variant(find_program(program), variant)
    wanted = find_program(program).name if program or variant else None
    with redis_errors("clear the cache"):
        return sum(on_each_spine(lambda: _clear_here(wanted, variant)))


def _clear_here(program: str | None, variant: str | None) -> int:
    client = jobs_client()
    cleared = 0
    for page in _pages():
        aliases = [alias for alias, held in page if _matches(held["queue"], program, variant)]
        if aliases:
            cleared += client.unlink(*aliases)
    client.publish(invalidations_channel(), EVERYTHING)
    return cleared


def forget_tenant(tenant: str) -> int:
    """Forget the answers to a tenant's questions, and delete their results.

    Returns:
        Number of answers and runs in progress forgotten. Within a second no process serves them.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("forget the tenant's answers"):
        return sum(on_each_spine(lambda: _forget_here(tenant)))


def _forget_here(tenant: str) -> int:
    forgotten = 0
    for page in _pages():
        own = [(alias, held["answered"]) for alias, held in page if held["tenant"] == tenant]
        answered = [task_id for _, task_id in own if task_id]
        for _, task_ids in by_spine(answered, answered):
            answers_client().unlink(*map(result_key, task_ids), *map(stream_key, task_ids))
        start = len(alias_key(""))
        if own:
            forgotten += process_claims().invalidate(alias.decode()[start:] for alias, _ in own)
    return forgotten


def cache_statistics() -> CacheStatistics:
    """Return the cache's size and counters.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("read the cache's statistics"):
        sizes = on_each_spine(lambda: (*measure_cache(), _read_evictions()))
        entries, size_bytes, evictions = map(sum, zip(*sizes, strict=True))
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
    """Return the number of answers that the active spine serves, and their bytes; it reads each, a page at a time.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    entries = size_bytes = 0
    for page in _pages():
        answered = [held["answered"] for _, held in page if held["answered"]]
        for _, task_ids in by_spine(answered, answered):
            pipeline = answers_client().pipeline(transaction=False)
            for task_id in task_ids:
                pipeline.strlen(result_key(task_id))
            sizes = [size for size in pipeline.execute() if size]
            entries += len(sizes)
            size_bytes += sum(sizes)
    return entries, size_bytes


def _read_evictions() -> int:
    return int(read_number(cast("bytes | None", jobs_client().hget(key(CACHE_STATISTICS), "evictions"))))


def _pages() -> Iterator[list[tuple[bytes, dict[str, str | None]]]]:
    """Yield every alias of the active spine with its queue, answering task and tenant, a page at a time.

    Redis serves others in between.
    """
    client = jobs_client()
    cursor = 0
    fields = ("queue", "answered", "tenant")
    while True:
        cursor, aliases = cast("tuple[int, list[bytes]]", client.scan(cursor, alias_key("*"), _PAGE_KEYS, "HASH"))
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
