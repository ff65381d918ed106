"""Forgetting of a tenant, of a unit, and of what is older than a day."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import cast

from dspyq.cache.admin import forget_tenant as forget_cached
from dspyq.config.settings import get_settings
from dspyq.delivery.dead import DEAD
from dspyq.errors import InvalidOption
from dspyq.prediction.stored import parse_meta
from dspyq.retention.comments import remove_comments_before, remove_comments_of
from dspyq.retention.lanes import remove_open_lines, state_lanes
from dspyq.retention.removal import Removal, pages, remove_dead, remove_rows, remove_tasks, scan
from dspyq.sealing.keyring import is_envelope, key_id_of
from dspyq.store.clients import answers_client, jobs_client, redis_errors
from dspyq.store.content import decode_result
from dspyq.store.keys import EVERYTHING, invalidations_channel, job_key, key, result_key, stream_key
from dspyq.store.spines import each_spine
from dspyq.store.unit_index import are_units_indexed, drop_unit, read_unit

#: Bytes of a result, or of the first entry of a stream, that hold the id of their key.
_HEAD_BYTES = 40
_UNFINISHED = "unfinished jobs: {number:,}, and what they will store; forget again once they have ended"
_BEYOND_REDIS = "what left Redis: logs and traces, OUT of batches, answers that callers hold, backups"


def forget_tenant(tenant: str) -> Removal:
    """Remove what is stored of a tenant's questions, and destroy its key.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    removal = Removal()
    with redis_errors("forget the tenant"):
        removal.key_id = _destroy_key(tenant)
        remove_open_lines(tenant, removal)
        removal.answers = forget_cached(tenant)
        unfinished = 0
        for _ in each_spine():
            unfinished += sum([remove_dead(task_ids, removal) for task_ids in _jobs_of(tenant)])
            if removal.key_id:
                removal.results += _remove_sealed(result_key(""), removal.key_id)
                removal.streams += _remove_sealed(stream_key(""), removal.key_id)
        if removal.key_id:
            remove_rows(frozenset(), removal, removal.key_id)
        remove_comments_of(tenant, removal.key_id, removal)
        state_lanes(lambda line: line.tenant == tenant, removal)
    _state_unfinished(unfinished, removal)
    if removal.key_id:
        removal.not_reached.append(
            f"copies of Redis from before hold its key {removal.key_id} too, sealed: they can be read until the keys "
            "that sealed it are gone"
        )
    else:
        removal.not_reached.append(
            "results whose answer the cache serves no longer and their streams, and rows of experiments: without "
            "[encryption] they name no tenant; they end by themselves"
        )
    removal.not_reached.append(_BEYOND_REDIS)
    return removal


def forget_unit(unit: str) -> Removal:
    """Remove what is stored of a unit's questions; answers that it shares with others are computed anew for them.

    Raises:
        InvalidOption: If units are not indexed.
        RedisUnavailable: If Redis does not answer.
    """
    if not are_units_indexed():
        raise InvalidOption(
            "units are stored nowhere: set encryption.index_units = true to find what they ask from now on"
        )
    removal, unfinished = Removal(), 0
    tasks: set[str] = set()
    with redis_errors("forget the unit"):
        for asked in pages(read_unit(unit)):
            unfinished += remove_tasks(asked, removal, tasks)
        remove_rows(frozenset(tasks), removal)
        state_lanes(lambda line: line.task in tasks, removal)
        drop_unit(unit)
    _state_unfinished(unfinished, removal)
    removal.not_reached.append(
        "what it asked before encryption.index_units was set, or longer ago than answers are kept"
    )
    removal.not_reached.append(_BEYOND_REDIS)
    return removal


def forget_before(moment: float) -> Removal:
    """Remove answers, failures, dead-lettered jobs and rows that are older than a moment, seconds since 1970.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    removal = Removal()
    unreadable = unfinished = 0
    with redis_errors("forget what is older"):
        for _ in each_spine():
            unreadable += _remove_results_before(moment, removal)
            _remove_jobs_and_rows_before(moment, removal)
            unfinished += sum(_count_older(names, moment) for names in scan(jobs_client(), job_key("")))
        state_lanes(lambda line: line.at < moment, removal)
        remove_comments_before(moment, removal)
    _state_unfinished(unfinished, removal)
    if unreadable:
        removal.not_reached.append(
            f"results that cannot be read, or state no time: {unreadable:,}; they end by themselves"
        )
    removal.not_reached.append(_BEYOND_REDIS)
    return removal


def _remove_results_before(moment: float, removal: Removal) -> int:
    """Delete older results of the active spine; return the number of those whose time cannot be read."""
    unreadable = 0
    for names in scan(answers_client(), result_key("")):
        stored = cast("list[bytes | None]", answers_client().mget(names))
        old = []
        for name, each in zip(names, stored, strict=True):
            at = None if each is None else _stored_at(name.decode().removeprefix(result_key("")), each)
            unreadable += each is not None and at is None
            if at is not None and at < moment:
                old.append(name)
        removal.results += int(answers_client().unlink(*old)) if old else 0
    return unreadable


def _remove_jobs_and_rows_before(moment: float, removal: Removal) -> None:
    """Drop older dead-lettered jobs of the active spine, and older rows, and have memories forget their copies."""
    jobs_client().publish(invalidations_channel(), EVERYTHING)  # copies in memory; aliases without results serve none
    dead = cast("list[bytes]", jobs_client().zrangebyscore(key(DEAD), "-inf", f"({moment}"))
    for task_ids in pages(each.decode() for each in dead):
        remove_dead(task_ids, removal)
    for names in scan(jobs_client(), key("experiment-rows:")):
        removal.rows += sum(
            int(jobs_client().xtrim(name, minid=f"{moment * 1000:.0f}", approximate=False)) for name in names
        )


def _destroy_key(tenant: str) -> str:
    """Destroy a tenant's key, and wait until no process seals with it; return its id, empty where it has none."""
    if not get_settings().encryption.is_on:
        return ""
    from dspyq.store.sealed import process_tenant_keys  # noqa: PLC0415 - loads cryptography
    from dspyq.store.tenant_keys import SEALS_SECONDS  # noqa: PLC0415 - as above

    key_id = process_tenant_keys().destroy(tenant)
    if key_id:
        time.sleep(SEALS_SECONDS)
    return key_id


def _jobs_of(tenant: str) -> Iterator[list[str]]:
    for names in scan(jobs_client(), job_key("")):
        pipeline = jobs_client().pipeline(transaction=False)
        for name in names:
            pipeline.hget(name, "tenant")
        found = zip(names, pipeline.execute(raise_on_error=False), strict=True)
        if own := [name.decode().removeprefix(job_key("")) for name, of in found if of == tenant.encode()]:
            yield own


def _remove_sealed(start: str, key_id: str) -> int:
    """Delete the results or streams that are sealed with a key, those of failed jobs too; return their number."""
    removed = 0
    for names in scan(answers_client(), start):
        pipeline = answers_client().pipeline(transaction=False)
        for name in names:
            pipeline.getrange(name, 0, _HEAD_BYTES)
        found = zip(names, pipeline.execute(raise_on_error=False), strict=True)
        own = [name for name, head in found if isinstance(head, bytes) and _is_of(key_id, head)]
        removed += int(answers_client().unlink(*own)) if own else 0
    return removed


def _is_of(key_id: str, head: bytes) -> bool:
    """Return True for an envelope of a key; an entry of a stream has its length before it."""
    envelope = head.partition(b"\n")[2] if head[:1].isdigit() else head
    return is_envelope(envelope) and key_id_of(envelope) == key_id.encode()


def _stored_at(task_id: str, stored: bytes) -> float | None:
    meta = parse_meta(decode_result(task_id, stored))
    match meta:
        case {"result": {"metadata": {"timestamp": float(at)}}}:
            return at
        case {"date_done": str(done)}:
            try:
                return datetime.fromisoformat(done).timestamp()
            except ValueError:
                return None
        case _:
            return None


def _count_older(names: list[bytes], moment: float) -> int:
    """Return how many of these jobs were put before a moment, dead-lettered ones left out."""
    pipeline = jobs_client().pipeline(transaction=False)
    for name in names:
        pipeline.hmget(name, "put_at", "reason")
    replies = [reply for reply in pipeline.execute(raise_on_error=False) if isinstance(reply, list)]
    return sum(reason is None and at is not None and float(at) < moment for at, reason in replies)


def _state_unfinished(number: int, removal: Removal) -> None:
    if number:
        removal.not_reached.insert(0, _UNFINISHED.format(number=number))
