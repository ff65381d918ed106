"""Questions that cannot be claimed where their jobs are: asked elsewhere in place of a job, which waits for the answer.

So it is with a job that an earlier list of servers had put at the former owner of its question, or that was sent by its
task's name alone and is where its id leads.
"""

from __future__ import annotations

import contextvars
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn, cast

from celery.app.task import Context
from celery.exceptions import Ignore

from dspyq.cache.claim import Claim, Run
from dspyq.cache.claims import process_claims
from dspyq.cache.earlier_results import withdraw_failures
from dspyq.client.asking import QueueAsker
from dspyq.client.result import PredictionResult
from dspyq.core.events import Event
from dspyq.delivery.task import park
from dspyq.errors import RedisUnavailable
from dspyq.prediction.request import Request
from dspyq.prediction.stored import answers_question, unreadable_error
from dspyq.store.clients import answers_client, redis_errors
from dspyq.store.content import decode_result
from dspyq.store.keys import result_key
from dspyq.store.spines import Spine, current_spine, id_beside, process_spines
from dspyq.worker.prediction_run import WAIT_IN_REDIS_SECONDS

logger = logging.getLogger("dspyq.tasks")


def ask_elsewhere(context: Context, request: Request, run: Run) -> Claim:
    """Return the answer to a question that another Redis owns, asked there as a caller does.

    The task that answers it has an id that the job's own decides, so that a run that is repeated finds it again.

    Raises:
        Ignore: If the job waits for the answer in Redis, or for a worker with the list that the others have.
        Exception: The error of the task that was to answer it.
        redis.RedisError: If Redis does not answer.
    """
    spines = process_spines()
    if spines is None or (owner := spines.owner(request.input_hash)) is current_spine():
        logger.warning(Event("job_left_to_new_list", reason="others have moved its question: restart this worker"))
        park(context, WAIT_IN_REDIS_SECONDS)
    name = f"{context.id} {context.retries or 0} {request.input_hash}"
    task_id = id_beside(request.input_hash, str(uuid.uuid5(uuid.NAMESPACE_OID, name)))
    if (stored := _earlier_result(owner, task_id, run)) is not None:
        if not answers_question(stored, request.input_hash):
            _fail(request, run, PredictionResult(task_id).with_answer(stored))
        return Claim("hit", task_id, stored)
    claim = _ask(request._replace(exposure=None), task_id, int((context.delivery_info or {}).get("priority") or 0))
    if claim is None or claim.verdict not in {"hit", "damaged"}:
        park(context, WAIT_IN_REDIS_SECONDS)
    if claim.verdict == "damaged":
        _fail(request, run, PredictionResult(task_id).with_answer(claim.result))
    return claim


def _earlier_result(owner: Spine, task_id: str, run: Run) -> bytes | None:
    """Return what a task asked in an earlier run of the job came to; one of an earlier job of its id is withdrawn."""
    with owner.runtime.active():
        if not run.is_repeated:
            withdraw_failures(answers_client(), [task_id])
            return None
        stored = cast("bytes | None", answers_client().get(result_key(task_id)))
        return stored and decode_result(task_id, stored)


def _ask(request: Request, task_id: str, priority: int) -> Claim | None:
    """Ask from a thread of its own, in which Celery takes the new task for no child of this one; None for later."""

    def ask() -> Claim:
        with redis_errors("ask for the prediction"):
            return QueueAsker().claim_where_it_is(request, task_id, {"priority": priority})

    with ThreadPoolExecutor(1, thread_name_prefix="dspyq-elsewhere") as aside:
        try:
            return aside.submit(contextvars.copy_context().run, ask).result()
        except RedisUnavailable as error:
            logger.warning(Event("job_waits_for_redis", error=str(error)))
            return None


def _fail(request: Request, run: Run, failed: PredictionResult) -> NoReturn:
    """End a job as the task failed that was to answer its question.

    Raises:
        Ignore: If another run has the job.
        Exception: The task's error.
    """
    if not process_claims().release(request, run, {"failures": 1}):
        raise Ignore
    outcome: object = failed.get(propagate=False)
    raise outcome if isinstance(outcome, Exception) else unreadable_error()
