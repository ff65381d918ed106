"""Read-only look-up of questions in Redis: it counts, claims and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from dspyq.config.settings import get_settings
from dspyq.core.tolerated import tolerate
from dspyq.prediction.prediction import Metadata, is_prediction, metadata_from_json
from dspyq.prediction.request import Request
from dspyq.prediction.stored import answers_question, parse_meta
from dspyq.store.clients import answers_client, is_wrong_type, jobs_client, which_exist
from dspyq.store.content import decode_result
from dspyq.store.keys import alias_key, job_key, result_key
from dspyq.store.spines import each_spine, spread

_FIELDS = ("answered", "until", "pending", "since")
_PAGE_KEYS = 1000
_ANSWERS_AT_ONCE = 50
#: Most pages of a large cache that are searched for answers of a variant.
_MOST_PAGES = 50

QuestionState = Literal["answered", "running", "new"]


class CacheState(NamedTuple):
    """Cache state of a question.

    Attributes:
        state: Answered, about to be answered by a run, or neither.
        task_id: The task that answered; empty otherwise.
    """

    state: QuestionState
    task_id: str = ""


def peek(requests: Sequence[Request]) -> list[CacheState]:
    """Return the cache state of questions; answers are read in parts to bound memory."""
    return spread(requests, [request.input_hash for request in requests], lambda own, _: _peek_here(own))


def _peek_here(requests: Sequence[Request]) -> list[CacheState]:
    """Return the cache state of questions of the active spine."""
    pipeline = jobs_client().pipeline(transaction=False)
    pipeline.time()
    for request in requests:
        pipeline.hmget(alias_key(request.input_hash), _FIELDS)
    (seconds, microseconds), *aliases = map(_held, pipeline.execute(raise_on_error=False))
    now = seconds * 1000 + microseconds // 1000
    runs = {_text(pending) for _, _, pending, _ in aliases if pending}
    answered_by = [_text(answered) if float(until or 0) > now else "" for answered, until, *_ in aliases]
    good = _answered(requests, answered_by)
    alive = which_exist(jobs_client(), job_key(""), runs)
    hold = get_settings().delivery.claim_timeout_seconds * 1000
    seen = []
    for request, task_id, (_, _, pending, since) in zip(requests, answered_by, aliases, strict=True):
        if request.input_hash in good:
            seen.append(CacheState("answered", task_id))
        elif pending and (_text(pending) in alive or now - float(since or 0) < hold):
            seen.append(CacheState("running"))
        else:
            seen.append(CacheState("new"))
    return seen


def _held(reply: Any) -> Any:
    """Return a reply; no fields for an alias of another type, which fails its own row when the batch runs."""
    if is_wrong_type(reply):
        return [None] * len(_FIELDS)
    if isinstance(reply, Exception):
        raise reply
    return reply


def _answered(requests: Sequence[Request], task_ids: Sequence[str]) -> set[str]:
    """Return the hashes of questions whose stated task has stored an answer to them."""
    asked = [(request.input_hash, task_id) for request, task_id in zip(requests, task_ids, strict=True) if task_id]
    good = set()
    for start in range(0, len(asked), _ANSWERS_AT_ONCE):
        some = asked[start : start + _ANSWERS_AT_ONCE]
        stored = cast("list[bytes | None]", answers_client().mget([result_key(task_id) for _, task_id in some]))
        found = zip(some, stored, strict=True)
        good |= {
            input_hash
            for (input_hash, task_id), payload in found
            if payload and answers_question(decode_result(task_id, payload), input_hash)
        }
    return good


def read_metadata(task_ids: Sequence[str]) -> list[Metadata | None]:
    """Return the metadata of answers in one round trip; None for one that is gone."""
    if not task_ids:
        return []
    stored = spread(task_ids, task_ids, lambda own, _: _results(own))
    return [_metadata(each and decode_result(task_id, each)) for task_id, each in zip(task_ids, stored, strict=True)]


def _results(task_ids: Sequence[str]) -> list[bytes | None]:
    return cast("list[bytes | None]", answers_client().mget([result_key(task_id) for task_id in task_ids]))


def find_answers(queue: str, wanted: int) -> list[str]:
    """Return tasks of some answers of a variant, found in a bounded search of each spine."""
    found: list[str] = []
    for _ in each_spine():
        found += _find_here(queue, wanted)
    return found[:wanted]


def _find_here(queue: str, wanted: int) -> list[str]:
    client, cursor = jobs_client(), 0
    found: list[str] = []
    for _ in range(_MOST_PAGES):
        cursor, aliases = cast("tuple[int, list[bytes]]", client.scan(cursor, alias_key("*"), _PAGE_KEYS, "HASH"))
        pipeline = client.pipeline(transaction=False)
        for alias in aliases:
            pipeline.hmget(alias, ("queue", "answered"))
        found += [_text(answered) for held, answered in pipeline.execute() if answered and _text(held) == queue]
        if cursor == 0 or len(found) >= wanted:
            break
    return found[:wanted]


def _metadata(stored: bytes | None) -> Metadata | None:
    meta = parse_meta(stored) if stored else None
    try:
        return metadata_from_json(meta["result"]["metadata"]) if meta and is_prediction(meta["result"]) else None
    except (LookupError, TypeError, ValueError) as error:
        tolerate("result", error)
        return None


def _text(value: bytes | None) -> str:
    return value.decode() if value else ""
