"""Dead-lettered jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, cast

import redis

from dspyq.core.runtime import per_runtime
from dspyq.delivery.records import BATCH_SIZE
from dspyq.store.clients import jobs_client
from dspyq.store.keys import job_key, key
from dspyq.store.scripts import load_script
from dspyq.store.spines import on_each_spine

DEAD = "dead"
_UNNOTIFIED = "untold"  # the key of 0.1
NO_FAILURES: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})


@dataclass(frozen=True)
class DeadJob:
    """A dead-lettered job.

    Attributes:
        id: The task's id.
        queue: The queue's name.
        reason: The reason, in words.
        message: The message's text.
        lost: Number of its runs that lost their lease.
        set_aside_at: When, seconds since 1970 by Redis's clock.
    """

    id: str
    queue: str
    reason: str
    message: bytes
    lost: int
    set_aside_at: float


class DeadJobs:
    """The dead-lettered jobs.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._replay = load_script(client, "dspyq.delivery", "replay")

    def find(self, limit: int = BATCH_SIZE, job_ids: Sequence[str] = ()) -> list[DeadJob]:
        """Return dead-lettered jobs: the latest, or those with these ids."""
        latest = cast("list[bytes]", self._client.zrevrange(key(DEAD), 0, limit - 1)) if not job_ids else []
        wanted = job_ids or [_text(job_id) for job_id in latest]
        pipeline = self._client.pipeline(transaction=False)
        for job_id in wanted:
            pipeline.hmget(job_key(job_id), "queue", "reason", "message", "lost")
            pipeline.zscore(key(DEAD), job_id)
        replies = pipeline.execute()
        return [
            DeadJob(job_id, _text(queue), _text(reason), message or b"", _count(lost), set_aside_at)
            for job_id, (queue, reason, message, lost), set_aside_at in zip(
                wanted, replies[::2], replies[1::2], strict=True
            )
            if set_aside_at is not None
        ]

    def __len__(self) -> int:
        """Return the number of dead-lettered jobs."""
        return int(self._client.zcard(key(DEAD)))

    def unnotified(self, job_ids: Sequence[str]) -> list[str]:
        """Return those of these jobs whose callers are not notified yet."""
        known = cast("list[int]", self._client.smismember(key(_UNNOTIFIED), list(job_ids))) if job_ids else []
        return [job_id for job_id, is_unnotified in zip(job_ids, known, strict=True) if is_unnotified]

    def mark_notified(self, job_ids: Sequence[str]) -> None:
        """Record that the callers of these jobs are notified."""
        if job_ids:
            self._client.srem(key(_UNNOTIFIED), *job_ids)

    def replay(self, job_ids: Iterable[str], failed: Mapping[str, Sequence[str]] = NO_FAILURES) -> int:
        """Queue dead-lettered jobs as if they were new; return their number.

        Args:
            job_ids: The jobs.
            failed: Of each, the tasks whose results in the Redis of jobs state its failure: they are withdrawn.
        """
        jobs: list[str | int] = []
        for job_id in job_ids:
            tasks = failed.get(job_id, ())
            jobs += [job_id, len(tasks), *tasks]
        return int(self._replay(jobs=jobs))


def _text(field: bytes | None) -> str:
    return (field or b"").decode(errors="backslashreplace")


def _count(field: bytes | None) -> int:
    """Read a number that may be missing or invalid: one damaged record must not hide the others."""
    return int(field) if field and field.isdigit() else 0


@per_runtime(is_of_part=True)
def dead_jobs() -> DeadJobs:
    """Return this process's view of the dead-lettered jobs of the active spine."""
    return DeadJobs(jobs_client())


def find_dead(limit: int = BATCH_SIZE, job_ids: Sequence[str] = ()) -> list[DeadJob]:
    """Return dead-lettered jobs of all spines: the latest, or those with these ids, as ``DeadJobs.find`` does."""
    found = [job for jobs in on_each_spine(lambda: dead_jobs().find(limit, job_ids)) for job in jobs]
    if not job_ids:
        return sorted(found, key=lambda job: job.set_aside_at, reverse=True)[:limit]
    places = {job_id: place for place, job_id in enumerate(job_ids)}
    return sorted(found, key=lambda job: places[job.id])


def count_dead() -> int:
    """Return the number of dead-lettered jobs of all spines."""
    return sum(on_each_spine(lambda: len(dead_jobs())))
