"""Results that an earlier run of a task left under its id.

An answer serves again. A failure is withdrawn before the task runs again, so that callers get the new outcome from then
on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import redis

from dspyq.delivery.records import TAKEN_ID
from dspyq.errors import InvalidOption
from dspyq.prediction.request import Request
from dspyq.prediction.stored import answers_question, is_failure
from dspyq.store.content import decode_result
from dspyq.store.keys import replies_channel, result_key


def find_failures(client: Any, task_ids: Sequence[str]) -> list[str]:
    """Return those of these tasks whose stored result is a failure.

    Args:
        client: The Redis of answers, or a pipeline that watches there.
        task_ids: The tasks.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    if not task_ids:
        return []
    results = cast("list[bytes | None]", client.mget([result_key(task_id) for task_id in task_ids]))
    return [
        task_id
        for task_id, stored in zip(task_ids, results, strict=True)
        if stored is not None and is_failure(decode_result(task_id, stored))
    ]


def withdraw_failures(client: redis.Redis, task_ids: Sequence[str]) -> None:
    """Delete the stored results of these tasks that are failures, all at once.

    An answer that is stored meanwhile stays: the keys are watched.

    Args:
        client: The Redis of answers.
        task_ids: The tasks.

    Raises:
        redis.RedisError: If Redis does not answer.
    """

    def withdraw(pipeline: Any) -> None:
        failed = find_failures(pipeline, task_ids)
        pipeline.multi()
        if failed:
            pipeline.delete(*map(result_key, failed))

    if task_ids:
        client.transaction(withdraw, *map(result_key, task_ids))


def earlier_answer(client: redis.Redis, task_id: str, input_hash: str) -> bytes | None:
    """Return the answer that an earlier run of a job stored before it ended without finishing the job; or None.

    Args:
        client: The Redis of answers.
        task_id: The task.
        input_hash: Its question.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    stored = cast("bytes | None", client.get(result_key(task_id)))
    if stored is None:
        return None
    result = decode_result(task_id, stored)
    if is_failure(result):
        withdraw_failures(client, [task_id])
        return None
    return result if answers_question(result, input_hash) else None


def prepare_own_id(client: redis.Redis, request: Request, task_id: str) -> None:
    """Check a task id that a caller chose, and withdraw a failure of the same question stored under it.

    Args:
        client: The Redis of answers.
        request: The question.
        task_id: The id.

    Raises:
        InvalidOption: If another question's answer or failure is stored there.
        redis.RedisError: If Redis does not answer.
    """
    stored = cast("bytes | None", client.get(result_key(task_id)))
    if stored is None:
        return
    result = decode_result(task_id, stored)
    if b'"input_hash":' in result and request.input_hash.encode() not in result:
        raise InvalidOption(TAKEN_ID)
    if is_failure(result):
        try:
            withdraw_failures(client, [task_id])
        except redis.exceptions.NoPermissionError:
            return  # this user may not write results; the new one replaces it


def store_and_publish(answers: redis.Redis, task_id: str, payload: bytes, seconds: int) -> None:
    """Store an answer apart from its job."""
    pipeline, stored_under = answers.pipeline(), result_key(task_id)
    pipeline.set(stored_under, payload, ex=seconds)
    pipeline.publish(stored_under, payload)
    if replies := replies_channel(task_id):
        pipeline.publish(replies, task_id.encode() + payload)
    pipeline.execute()
