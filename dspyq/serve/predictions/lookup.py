"""The state of a prediction in Redis, and its answer."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from celery.exceptions import TaskRevokedError

from dspyq.cache.moves import find_runs
from dspyq.client.asking import process_asker
from dspyq.client.result import PredictionResult
from dspyq.client.spread_bulk import process_bulk
from dspyq.core.runtime import per_runtime
from dspyq.delivery.versions import base_queue
from dspyq.errors import DspyqError, NotAPrediction
from dspyq.guards.waits import guard_that_holds
from dspyq.prediction.prediction import AnsweredCaller, Prediction
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import job_key, key
from dspyq.store.spines import on_spine

#: How long a guard's state is good for clients that look at jobs it may hold up.
_FRESH_SECONDS = 1.0
#: Hold-ups that a process remembers.
_MOST_FOUND = 10_000


class CallStanding(NamedTuple):
    """State of a call and of its run.

    Attributes:
        mark: ``cancelled`` or ``gone`` where this caller has withdrawn its call; empty for one that it has not.
        has_job: Whether its job is unfinished.
        queue: The queue of its unfinished job; empty for none.
        is_running: Whether a worker has the job.
        waits_for: The guard that holds the job up; None for none that is known.
        payload: The stored result; None for none.
    """

    mark: str
    has_job: bool
    queue: str
    is_running: bool
    waits_for: str | None
    payload: bytes | None


def call_key(call: CallOfPrediction) -> str:
    """Return the key of what its caller did to a call."""
    return key("serve-call:") + call.call_id


class HoldUps:
    """The guards that hold queues up, each looked for once a second at most, however many clients poll."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, bool, str], tuple[float, str | None]] = {}

    def find(self, queue: str, *, is_parked: bool, tenant: str = "") -> str | None:
        """Return the name of the guard; None for none that is known.

        Args:
            queue: The queue of a job that waits.
            is_parked: Whether that job is delayed.
            tenant: The job's tenant; empty for none.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        key, now = (queue, is_parked, tenant), time.monotonic()
        found_at, name = self._found.get(key, (float("-inf"), None))
        if now - found_at > _FRESH_SECONDS:
            guard = guard_that_holds(queue, is_parked=is_parked, tenant=tenant)
            name = guard and guard.name
            if len(self._found) >= _MOST_FOUND:  # tenants have no bound
                self._found.clear()
            self._found[key] = now, name
        return name


@per_runtime
def process_hold_ups() -> HoldUps:
    """Return the hold-ups that this process has seen."""
    return HoldUps()


def look_up(call: CallOfPrediction) -> CallStanding:
    """Return how a prediction stands, in two round trips, and some more each second for those that wait.

    The job is looked at first: it ends after its answer is stored.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("look the prediction up"):
        find_runs([call.task_id])
    with redis_errors("look the prediction up"), on_spine(call.task_id):
        pipeline = jobs_client().pipeline(transaction=False)
        pipeline.get(call_key(call))
        pipeline.hmget(job_key(call.task_id), "queue", "tenant")
        pipeline.zscore(key("leases"), call.task_id)
        pipeline.zscore(key("delayed"), call.task_id)
        found: list[Any] = pipeline.execute()
        mark, (queue, tenant), leased, delayed = found
        (payload,) = process_bulk().collect([call.task_id])
        waits_for = None
        if payload is None and queue is not None and leased is None:
            name = base_queue(queue.decode(errors="replace"))
            asked_by = (tenant or b"").decode(errors="replace")
            waits_for = process_hold_ups().find(name, is_parked=delayed is not None, tenant=asked_by)
    return CallStanding(
        (mark or b"").decode(),
        queue is not None,
        base_queue(queue.decode(errors="replace")) if queue else "",
        leased is not None,
        waits_for,
        payload,
    )


def read_answer(call: CallOfPrediction, payload: bytes) -> Prediction | DspyqError | None:
    """Return a stored prediction as a call sees it, or the error it failed with; None for one that was cancelled.

    Raises:
        NotAPrediction: If the result is another task's.
    """
    answer = answer_of(process_asker().result(call.task_id).with_answer(payload))
    if call.cache_level is None or not isinstance(answer, Prediction):
        return answer
    seen = AnsweredCaller(answer.metadata.variant, "", call.cache_level)
    return Prediction(answer.outputs, answer.metadata.seen_by(seen), answer.to_dict())


def answer_of(handle: PredictionResult) -> Prediction | DspyqError | None:
    """Return what an answered handle holds: a prediction, the error it failed with, or None where it was cancelled.

    Raises:
        NotAPrediction: If the result is another task's.
    """
    try:
        return handle.get(disable_sync_subtasks=False)
    except NotAPrediction:
        raise
    except TaskRevokedError:
        return None
    except DspyqError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever a program raised, as its worker stored it
        failure = DspyqError(type(error).__name__)
        failure.__cause__ = error
        return failure
