"""Reasons for which a job is not answered yet, from its state in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from dspyq.delivery.versions import base_queue, version_queue
from dspyq.store.keys import job_key, key

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

#: Reason for a delayed job; the guards have the details.
PARKED = "it is parked for a while: a guard refused its model call, or another job answers its question"


def why_it_waits(client: redis.Redis, settings: Settings, task_id: str) -> tuple[str, str]:
    """Return a job's queue and the reason for its wait, in words; "" for each that is not known.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    pipeline = client.pipeline(transaction=False)
    pipeline.hget(job_key(task_id), "queue")
    pipeline.zscore(key("leases"), task_id)
    pipeline.zscore(key("delayed"), task_id)
    pipeline.zrange(key("served"), 0, -1, withscores=True)
    pipeline.time()
    found: list[Any] = pipeline.execute()
    stored, leased, delayed, served, (now, _) = found
    if stored is None:
        return "", "its job is in no queue: it has just ended, or was removed"
    queue = stored.decode(errors="replace")
    alive = {name.decode(errors="replace") for name, until in served if until > now}
    base = base_queue(queue)
    if leased is not None:
        return base, "a worker has it and works on it"
    if not alive & _names(settings, queue):
        if any(base_queue(name) == base for name in alive):
            return base, f"workers of {base} live, but have another version: restart them with this configuration"
        return base, f"no worker takes from its queue, {base}: start one (celery -A dspyq worker)"
    if delayed is not None:
        return base, PARKED
    return base, ""


def _names(settings: Settings, queue: str) -> set[str]:
    """Return the names under which workers that can answer a queue's jobs announce it."""
    for program in settings.programs.values():
        for variant in program.variants.values():
            if variant.queue == queue:
                return {version_queue(queue, program.fingerprints[variant.name])}
    return {queue}
