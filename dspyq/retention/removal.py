"""Removal from Redis, and what it does not reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import redis

from dspyq.cache.claims import process_claims
from dspyq.celery_app.revocation import drop_dead_jobs_here
from dspyq.delivery.dead import DEAD
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.keys import alias_key, job_key, key, result_key, stream_key
from dspyq.store.spines import by_owners, by_spine, each_spine

AT_ONCE = 500


@dataclass
class Removal:
    """Outcome of a removal.

    Attributes:
        answers: Answers that the cache serves no longer.
        results: Results under task ids.
        streams: Streams of answers.
        dead_jobs: Dead-lettered jobs.
        rows: Rows that experiments kept for exports.
        comments: Comments of callers on answers.
        calls: Calls that waited in lanes, in no shipment; their jobs were ended.
        files: Files of batches.
        key_id: The id of the tenant's key that was destroyed; empty for none.
        not_reached: What is still there, each in a sentence.
    """

    answers: int = 0
    results: int = 0
    streams: int = 0
    dead_jobs: int = 0
    rows: int = 0
    comments: int = 0
    calls: int = 0
    files: int = 0
    key_id: str = ""
    not_reached: list[str] = field(default_factory=list)


def pages(names: Iterable[Any], size: int = AT_ONCE) -> Iterator[list[Any]]:
    """Yield what an iterable holds in lists of a bounded size."""
    iterator = iter(names)
    while page := list(islice(iterator, size)):
        yield page


def scan(client: redis.Redis, start: str) -> Iterator[list[bytes]]:
    """Yield the names of keys that begin alike, a page at a time; Redis serves others in between."""
    yield from pages(client.scan_iter(f"{start}*", count=1000))


def remove_tasks(asked: Sequence[tuple[str, str]], removal: Removal, tasks: set[str]) -> int:
    """Remove the answers and results of questions and tasks; return how many jobs of theirs are unfinished.

    Args:
        asked: Hashes of questions, each with a task that was to answer it.
        removal: Counts what is removed.
        tasks: Gets these tasks, and those that answer or answered the questions.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    unfinished = 0
    for own in by_owners(asked, [input_hash for input_hash, _ in asked]):
        unfinished += _remove_tasks_here(own, removal, tasks)
    return unfinished


def _remove_tasks_here(asked: Sequence[tuple[str, str]], removal: Removal, tasks: set[str]) -> int:
    """Remove what is left of questions of the active spine."""
    hashes = list(dict.fromkeys(input_hash for input_hash, _ in asked))
    pipeline = jobs_client().pipeline(transaction=False)
    for input_hash in hashes:
        pipeline.hmget(alias_key(input_hash), "answered", "pending")
    held = [
        task.decode()
        for reply in pipeline.execute(raise_on_error=False)
        if isinstance(reply, list)
        for task in reply
        if task
    ]
    task_ids = list(dict.fromkeys([*(task_id for _, task_id in asked), *held]))
    tasks.update(task_ids)
    removal.answers += process_claims().invalidate(hashes)
    for _, own in by_spine(task_ids, task_ids):  # a result is where its id leads, its job where its question does
        removal.results += int(answers_client().unlink(*map(result_key, own)))
        removal.streams += int(answers_client().unlink(*map(stream_key, own)))
    return remove_dead(task_ids, removal)


def remove_dead(task_ids: Sequence[str], removal: Removal) -> int:
    """Drop those of these jobs of the active spine that are dead-lettered; return how many others are unfinished.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    if not task_ids:
        return 0
    client = jobs_client()
    pipeline = client.pipeline(transaction=False)
    for task_id in task_ids:
        pipeline.exists(job_key(task_id))
        pipeline.zscore(key(DEAD), task_id)
    replies = pipeline.execute()
    found = [
        (task_id, bool(exists), score is not None)
        for task_id, exists, score in zip(task_ids, replies[::2], replies[1::2], strict=True)
    ]
    dead = [task_id for task_id, _, is_dead in found if is_dead]
    if dead:
        removal.dead_jobs += drop_dead_jobs_here(dead)
        for _, own in by_spine(dead, dead):
            answers_client().unlink(*map(result_key, own))  # their failures, which dropping may have stored
    return sum(exists and not is_dead for _, exists, is_dead in found)


def remove_rows(task_ids: frozenset[str], removal: Removal, key_id: str = "") -> None:
    """Delete the rows that experiments keep of these tasks, and those that are sealed with a key.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    for _ in each_spine():
        _remove_rows_here(task_ids, removal, key_id)


def _remove_rows_here(task_ids: frozenset[str], removal: Removal, key_id: str) -> None:
    client = jobs_client()
    mark = key_id.encode()
    for names in scan(client, key("experiment-rows:")):
        for name in names:
            start = "-"
            while entries := cast("list[Any]", client.xrange(name, start, count=AT_ONCE)):
                gone = [
                    identity
                    for identity, fields in entries
                    if fields.get(b"id", b"").decode(errors="replace") in task_ids
                    or (mark and fields.get(b"row", b"").split(b" ", 2)[-1][3:11] == mark)
                ]
                if gone:
                    removal.rows += int(client.xdel(name, *gone))
                start = f"({entries[-1][0].decode()}"
