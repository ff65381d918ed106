"""Jobs out of the traffic: what was set aside, and what is ended from outside."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import redis

from dspyq.delivery.records import BATCH_SIZE
from dspyq.store.clients import JOB_PREFIX, KEY_PREFIX, jobs_client
from dspyq.store.scripts import load_script

DEAD_KEY = f"{KEY_PREFIX}dead"
UNTOLD_KEY = f"{KEY_PREFIX}untold"


@dataclass(frozen=True)
class DeadJob:
    """A job that was set aside.

    Attributes:
        id: The task's id.
        queue: The queue's name.
        reason: Why.
        message: The message's text.
        lost: How often its runs lost their lease.
        set_aside_at: When, seconds since 1970 by Redis's clock.
    """

    id: str
    queue: str
    reason: str
    message: bytes
    lost: int
    set_aside_at: float


class DeadJobs:
    """The jobs that were set aside.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._end, self._replay = (
            load_script(client, "dspyq.delivery", name, library="jobs") for name in ("end", "replay")
        )

    def find(self, limit: int = BATCH_SIZE, job_ids: Sequence[str] = ()) -> list[DeadJob]:
        """Return jobs that were set aside: the latest, or those of these ids."""
        latest = cast("list[bytes]", self._client.zrevrange(DEAD_KEY, 0, limit - 1)) if not job_ids else []
        wanted = job_ids or [job_id.decode() for job_id in latest]
        pipeline = self._client.pipeline(transaction=False)
        for job_id in wanted:
            pipeline.hmget(f"{JOB_PREFIX}{job_id}", "queue", "reason", "message", "lost")
            pipeline.zscore(DEAD_KEY, job_id)
        replies = pipeline.execute()
        return [
            DeadJob(job_id, queue.decode(), (reason or b"").decode(), message, int(lost or 0), set_aside_at)
            for job_id, (queue, reason, message, lost), set_aside_at in zip(
                wanted, replies[::2], replies[1::2], strict=True
            )
            if set_aside_at is not None
        ]

    def __len__(self) -> int:
        """Return how many jobs are set aside."""
        return int(self._client.zcard(DEAD_KEY))

    def untold(self, job_ids: Sequence[str]) -> list[str]:
        """Return those of these jobs whose callers do not know yet that they were set aside."""
        known = cast("list[int]", self._client.smismember(UNTOLD_KEY, list(job_ids))) if job_ids else []
        return [job_id for job_id, is_untold in zip(job_ids, known, strict=True) if is_untold]

    def told(self, job_ids: Sequence[str]) -> None:
        """Note that the callers of these jobs know that they were set aside."""
        if job_ids:
            self._client.srem(UNTOLD_KEY, *job_ids)

    def replay(self, job_ids: Sequence[str]) -> int:
        """Queue jobs that were set aside as if they were new; return how many were."""
        return int(self._replay(args=list(job_ids)))

    def end(self, job_ids: Sequence[str]) -> list[bytes]:
        """End jobs wherever they stand, running ones too; return their messages, b"" where there is none."""
        messages: list[bytes] = self._end(args=list(job_ids))
        return messages


@functools.cache
def dead_jobs() -> DeadJobs:
    """Return this process's view of the jobs that were set aside."""
    return DeadJobs(jobs_client())
