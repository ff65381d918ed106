"""Ends of cancelled jobs: the process that cancels publishes them, and a worker stores them.

A producer may not write results. So its script leaves a cancelled job's message for the workers, one of which stores
that the job was revoked and counts it for its chord. Processes that wait for it have it at once, by one channel for
all: a message there only states ids, so it can bring no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import cast

import redis

from dspyq.cache.lost_result import LOST_RESULT, REVOKED_RESULT
from dspyq.celery_app.application import process_app
from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.delivery.job_messages import request_of_message
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.keys import cancellations_channel, key

logger = logging.getLogger(__name__)

_CANCELLED, _MESSAGES = "cancelled", "cancelled-jobs"
_IDS_A_MESSAGE = 1_000


def publish_cancelled(task_ids: Sequence[str]) -> None:
    """Have all processes that wait for these tasks learn that they were cancelled.

    Raises:
        redis.RedisError: If the Redis of answers does not answer.
    """
    client, channel = answers_client(), cancellations_channel()
    for start in range(0, len(task_ids), _IDS_A_MESSAGE):
        client.publish(channel, "\n".join(task_ids[start : start + _IDS_A_MESSAGE]))


def find_ends(jobs: redis.Redis, task_ids: Sequence[str]) -> list[bytes]:
    """Return the ends of tasks with neither a job nor a result: cancelled, and not stored yet by a worker, or lost.

    Args:
        jobs: The Redis of jobs.
        task_ids: The tasks.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    if not task_ids:
        return []
    times = jobs.zmscore(key(_CANCELLED), list(task_ids))
    for task_id, cancelled_at in zip(task_ids, times, strict=True):
        if cancelled_at is None:
            logger.warning(Event("answer_lost", task_id=task_id))
    return [LOST_RESULT if each is None else REVOKED_RESULT for each in times]


def store_cancelled(task_ids: Collection[str]) -> None:
    """Store that jobs were revoked, for callers, links and chords; a worker's part.

    Raises:
        redis.RedisError: If Redis does not answer: another worker does it then.
    """
    client = jobs_client()
    ids = list(task_ids)
    messages = cast("list[bytes | None]", client.hmget(key(_MESSAGES), ids))
    for task_id, message in zip(ids, messages, strict=True):
        if message is not None:  # else its id is used again
            _store(task_id, message)
        pipeline = client.pipeline()
        pipeline.hdel(key(_MESSAGES), task_id)
        pipeline.zrem(key(_CANCELLED), task_id)
        pipeline.execute()


def _store(task_id: str, message: bytes) -> None:
    mark: Callable[..., object] = process_app().backend.mark_as_revoked
    try:
        mark(task_id, "revoked", request=request_of_message(message))
    except redis.RedisError:
        raise
    except Exception as error:  # noqa: BLE001 - one malformed message must not keep other callers waiting
        tolerate("cancelled", error, is_fault=True)
        logger.warning(Event("links_not_told", task_id=task_id, reason="the job was cancelled"))
