"""A look at questions in Redis that counts nothing, claims nothing and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import orjson

from config.redis import KEY_PREFIX, answers_client, jobs_client
from config.settings import get_settings
from producer.claims import ALIAS_PREFIX, RESULT_PREFIX
from producer.prediction import Metadata, is_prediction, metadata_from_json
from producer.request import Request

_JOB_PREFIX = f"{KEY_PREFIX}job:"
_FIELDS = ("answered", "until", "pending", "since")
_PAGE_KEYS = 1000
#: Of a large cache, this much is looked through for answers of a variant.
_MOST_PAGES = 50

State = Literal["answered", "running", "new"]


class Seen(NamedTuple):
    """What there is of a question.

    Attributes:
        state: Whether it is answered, somebody's run is about to answer it, or neither.
        task_id: The task that answered; empty otherwise.
    """

    state: State
    task_id: str = ""


def peek(requests: Sequence[Request]) -> list[Seen]:
    """Return what there is of some questions, in two round trips."""
    pipeline = jobs_client().pipeline(transaction=False)
    pipeline.time()
    for request in requests:
        pipeline.hmget(ALIAS_PREFIX + request.input_hash, _FIELDS)
    (seconds, microseconds), *aliases = pipeline.execute()
    now = seconds * 1000 + microseconds // 1000
    results, jobs = answers_client().pipeline(transaction=False), jobs_client().pipeline(transaction=False)
    for answered, _, pending, _ in aliases:
        results.exists(RESULT_PREFIX + _text(answered))
        jobs.exists(_JOB_PREFIX + _text(pending))
    hold = get_settings().delivery.claim_timeout_seconds * 1000
    seen = []
    for (answered, until, pending, since), has_result, has_job in zip(
        aliases, results.execute(), jobs.execute(), strict=True
    ):
        if answered and has_result and float(until or 0) > now:
            seen.append(Seen("answered", _text(answered)))
        elif pending and (has_job or now - float(since or 0) < hold):
            seen.append(Seen("running"))
        else:
            seen.append(Seen("new"))
    return seen


def read_metadata(task_ids: Sequence[str]) -> list[Metadata | None]:
    """Return how answers came about, in one round trip; None for one that is gone."""
    if not task_ids:
        return []
    stored = cast("list[bytes | None]", answers_client().mget([RESULT_PREFIX + task_id for task_id in task_ids]))
    return [_metadata(each) for each in stored]


def find_answers(queue: str, wanted: int) -> list[str]:
    """Return the tasks of some answers to any questions of a variant, as far as a bounded search finds them."""
    client, cursor = jobs_client(), 0
    found: list[str] = []
    for _ in range(_MOST_PAGES):
        cursor, aliases = cast(
            "tuple[int, list[bytes]]", client.scan(cursor, match=f"{ALIAS_PREFIX}*", count=_PAGE_KEYS)
        )
        pipeline = client.pipeline(transaction=False)
        for alias in aliases:
            pipeline.hmget(alias, ("queue", "answered"))
        found += [_text(answered) for held, answered in pipeline.execute() if answered and _text(held) == queue]
        if cursor == 0 or len(found) >= wanted:
            break
    return found[:wanted]


def _metadata(stored: bytes | None) -> Metadata | None:
    result: Any = orjson.loads(stored)["result"] if stored else None
    return metadata_from_json(result["metadata"]) if is_prediction(result) else None


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""
