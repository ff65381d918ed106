"""Answers that nothing will bring any more: Redis has forgotten them before they were read, or has lost their jobs."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import redis
from celery.states import FAILURE

from config.errors import AnswerLost
from config.redis import KEY_PREFIX

_MESSAGE = (
    "Redis has forgotten this answer before it was read, or has lost its job: ask again; where that happens often, "
    "give the Redis of DSPYQ_RESULT_URL more memory or raise cache.result_ttl_seconds"
)
_ERROR = {"exc_module": AnswerLost.__module__, "exc_type": AnswerLost.__name__, "exc_message": [_MESSAGE]}
#: What Celery would store of ``AnswerLost``. It is told to who waits and never stored.
LOST_RESULT = orjson.dumps({"status": FAILURE, "result": _ERROR, "traceback": None, "children": []})


def without_job(jobs: redis.Redis, task_ids: Sequence[str]) -> list[str]:
    """Return which tasks have no job, in one round trip. Who has none and, read afterwards, no result is lost.

    Args:
        jobs: The Redis of jobs.
        task_ids: Tasks whose jobs were sent.

    Raises:
        redis.RedisError: If Redis cannot say.
    """
    pipeline = jobs.pipeline(transaction=False)
    for task_id in task_ids:
        pipeline.exists(f"{KEY_PREFIX}job:{task_id}")
    return [task_id for task_id, is_there in zip(task_ids, pipeline.execute(), strict=True) if not is_there]
