"""A look at questions in Redis that counts nothing, claims nothing and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import orjson

from dspyq.cache.claims import ALIAS_PREFIX, RESULT_PREFIX
from dspyq.config.settings import get_settings
from dspyq.prediction.prediction import Metadata, is_prediction, metadata_from_json
from dspyq.prediction.request import Request
from dspyq.store.clients import JOB_PREFIX, answers_client, jobs_client, which_exist

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
    """Return what there is of some questions, in three round trips at most."""
    pipeline = jobs_client().pipeline(transaction=False)
    pipeline.time()
    for request in requests:
        pipeline.hmget(ALIAS_PREFIX + request.input_hash, _FIELDS)
    (seconds, microseconds), *aliases = pipeline.execute()
    now = seconds * 1000 + microseconds // 1000
    answers = {_text(answered) for answered, *_ in aliases if answered}
    runs = {_text(pending) for _, _, pending, _ in aliases if pending}
    good = which_exist(answers_client(), RESULT_PREFIX, answers)
    alive = which_exist(jobs_client(), JOB_PREFIX, runs)
    hold = get_settings().delivery.claim_timeout_seconds * 1000
    seen = []
    for answered, until, pending, since in aliases:
        if _text(answered) in good and float(until or 0) > now:
            seen.append(Seen("answered", _text(answered)))
        elif pending and (_text(pending) in alive or now - float(since or 0) < hold):
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
