"""A caller takes its call back: the job ends with its last caller, and no other's interest is touched."""

from __future__ import annotations

from typing import Any, Literal, cast

import orjson

from dspyq.cache.moves import find_runs
from dspyq.celery_app.application import process_app
from dspyq.config.settings import get_settings
from dspyq.core.names import HEADER
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.lookup import call_key
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import alias_key, job_key, judgements_key
from dspyq.store.scripts import load_script
from dspyq.store.spines import on_spine

Mark = Literal["cancelled", "gone"]


def withdraw(call: CallOfPrediction, mark: Mark) -> None:
    """Withdraw a call, once, and remember that it was: a repetition withdraws no other call.

    Args:
        call: The call.
        mark: ``cancelled``, or ``gone`` for one that is to be forgotten.

    Raises:
        RedisUnavailable: If Redis does not answer; the same may be done again.
    """
    with redis_errors("cancel the prediction"):
        find_runs([call.task_id])
    with redis_errors("cancel the prediction"), on_spine(call.task_id):
        client = jobs_client()
        message = cast("bytes | None", client.hget(job_key(call.task_id), "message"))
        is_free = load_script(client, "dspyq.cache", "withdraw_call")(
            (alias_key(_input_hash(message)), call_key(call), judgements_key(call.call_id)),
            id=call.task_id,
            caller=call.call_id,
            mark=mark,
            seconds=seconds_remembered(),
        )
        if is_free:
            process_app().control.revoke(call.task_id)


def _input_hash(message: bytes | None) -> str:
    """Return the question of a job; empty for one that has ended, which no alias has as its run."""
    if message is None:
        return ""
    try:
        headers: dict[str, Any] = orjson.loads(message)["headers"]
        return str(headers[HEADER]["input_hash"])
    except (ValueError, LookupError, TypeError):
        return ""  # a damaged message, which its worker sets aside


def seconds_remembered() -> int:
    """Return how long a call may still be looked at: as long as any answer that comes now is kept."""
    settings = get_settings()
    longest = max((program.cache_ttl_seconds for program in settings.programs.values()), default=0)
    return max(longest, settings.cache.result_ttl_seconds)
