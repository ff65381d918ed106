"""Journal of a job's model calls and their replies, kept in Redis as long as the job.

A run that follows a parked or killed one reuses the paid replies and counts what was spent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields as fields_of
from operator import attrgetter
from typing import cast

import orjson
import redis

from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.guards.call_records import CallRecord, EarlierRuns, JobRun
from dspyq.store import content
from dspyq.store.clients import jobs_client
from dspyq.store.keys import key
from dspyq.store.scripts import Step, load_script

#: In place of the fence in the id of an attempt that was made by a lane.
LANE = "lane"
#: A worker of another version may have written more.
_FIELDS = frozenset(field.name for field in fields_of(CallRecord))
_CALL, _MORE, _REPLY, _RUNNING, _FAILURE = "call:", "more:", "reply:", "running_seconds", "failure:"
#: Fields added since 0.1. Version 0.1 fails on an additional field in a call, so these are in a field of their own.
_SINCE_0_2 = ("opens_breaker", "row", "is_in_outage", "account_row", "failed_at", "refused_at", "refused_row")
_IN_0_1 = tuple(field.name for field in fields_of(CallRecord) if field.name not in _SINCE_0_2)
# ``asdict`` copies each value: it takes longer than all else that is done for a call here.
_get_in_0_1, _get_since_0_2 = attrgetter(*_IN_0_1), attrgetter(*_SINCE_0_2)


def record_field(attempt_id: str) -> str:
    """Return the field of an attempt's record among the calls of its job."""
    return _CALL + attempt_id


class CallJournal:
    """The model calls of jobs, by task.

    Args:
        client: The Redis of jobs.

    Attributes:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._remember = load_script(client, "dspyq.guards", "remember")

    def of(self, task_id: str, variant: str) -> EarlierRuns:
        """Return the earlier runs of a job as this variant: its own, or a fallback.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        stored = cast("dict[bytes, bytes]", self.client.hgetall(key(f"calls:{task_id}")))
        fields = {name.decode(): value for name, value in stored.items()}
        attempts = {
            name.removeprefix(_CALL): _read_call(value, fields.get(_MORE + name.removeprefix(_CALL), b"{}"))
            for name, value in fields.items()
            if name.startswith(_CALL)
        }
        calls = [call for attempt_id, call in attempts.items() if f":{variant}:" in attempt_id]
        return EarlierRuns(
            calls=tuple(sorted(calls, key=lambda call: call.began_at)),
            replies=dict(_replies(task_id, fields, _REPLY)),
            running_seconds=float(fields.get(_RUNNING, 0.0)),
            failures=dict(_replies(task_id, fields, _FAILURE)),
            attempts=attempts,
        )

    def remember(self, job: JobRun, attempt_id: str, call: CallRecord, reply: bytes | None) -> Step[bool]:
        """Record an attempt and its reply; the step returns True if the run still owns its job.

        Args:
            job: The job of the attempt.
            attempt_id: ``<fence>:<variant>:<number>``, unique among the attempts of the job.
            call: The record of the attempt.
            reply: The reply in the form that the engine can load; None for a failed attempt.
        """
        fields = self.fields_of(job, attempt_id, call, reply)
        return self._remember.step(bool, id=job.task_id, fence=job.fence, fields=fields)

    @staticmethod
    def fields_of(
        job: JobRun, attempt_id: str, call: CallRecord, reply: bytes | None = None, failure: bytes | None = None
    ) -> list[str | bytes]:
        """Return the fields that record an attempt, each before its value.

        Args:
            job: As of ``remember``.
            attempt_id: As of ``remember``.
            call: As of ``remember``.
            reply: As of ``remember``.
            failure: A failure that no further attempt of this call changes.
        """
        stated = dict(zip(_IN_0_1, _get_in_0_1(call), strict=True))
        fields: list[str | bytes] = [_CALL + attempt_id, orjson.dumps(stated)]
        if any(added := _get_since_0_2(call)):
            more = {name: of for name, of in zip(_SINCE_0_2, added, strict=True) if of}
            fields += [_MORE + attempt_id, orjson.dumps(more)]
        if reply is not None:
            fields += [_REPLY + call.key, _encoded(job, call.key, reply)]
        if failure is not None:
            fields += [_FAILURE + call.key, _encoded(job, call.key, failure)]
        return fields

    def remember_running_time(self, job: JobRun, seconds: float) -> None:
        """Store the total running time of a job, for its deadline."""
        self._remember(id=job.task_id, fence=job.fence, fields=(_RUNNING, f"{seconds:.3f}"))


@per_runtime(is_of_part=True)
def process_call_journal() -> CallJournal:
    """Return this process's journal, of the active spine."""
    return CallJournal(jobs_client())


def _replies(task_id: str, fields: Mapping[str, bytes], start: str) -> Iterator[tuple[str, bytes]]:
    """Yield the replies, or failures, that can be read, by key; the next run pays for another anew."""
    for name, stored in fields.items():
        if not name.startswith(start):
            continue
        call_key = name.removeprefix(start)
        try:
            yield call_key, content.decode(content.Kind.REPLY, _owner(task_id, call_key), stored)
        except content.UnreadableContent as error:
            tolerate("reply", error)


def _encoded(job: JobRun, call_key: str, value: bytes) -> bytes:
    return content.encode(content.Kind.REPLY, _owner(job.task_id, call_key), value, tenant=job.tenant)


def _owner(task_id: str, call_key: str) -> str:
    return f"{task_id}\0{call_key}"


def _read_call(known: bytes, more: bytes) -> CallRecord:
    stated = {**orjson.loads(known), **orjson.loads(more)}
    return CallRecord(**{field: of for field, of in stated.items() if field in _FIELDS})
