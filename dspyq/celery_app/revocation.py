"""Durable revocation of jobs, which works even while no worker is up."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import chain

import redis
from celery.app.task import Context
from celery.exceptions import NotRegistered

from dspyq.cache.claim import Run
from dspyq.cache.claims import process_claims
from dspyq.cache.earlier_results import find_failures, withdraw_failures
from dspyq.celery_app.application import process_app
from dspyq.celery_app.cancellations import publish_cancelled
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.names import HEADER
from dspyq.delivery.dead import DeadJob, dead_jobs
from dspyq.delivery.job_messages import request_of_message
from dspyq.delivery.leases import process_leases
from dspyq.errors import PoisonedJob
from dspyq.prediction.header import Header
from dspyq.store.clients import answers_client
from dspyq.store.spines import by_owners, by_spine, each_spine, on_each_spine, process_spines

logger = logging.getLogger(__name__)


def revoke(task_ids: Iterable[str]) -> None:
    """End jobs for all callers: waiting jobs never run, running ones store nothing, waiting callers get an error.

    A worker stores that error, and until one has, processes that wait have it by a channel (see ``cancellations``).
    """
    ids = list(task_ids)
    for _ in each_spine():
        _revoke_here(ids)


def _revoke_here(ids: Sequence[str]) -> None:
    """End those of these jobs that are on the active spine; a job with an id of its own is on its question's."""
    ended = []
    for task_id, message in zip(ids, process_leases().records.end(ids), strict=True):
        _release(task_id, request_of_message(message) if message else None)
        if message:  # an evicted answer must not become an error that callers get
            ended.append(task_id)
    for own in by_owners(ended, ended):  # who waits for an id of the caller's own listens where that leads
        publish_cancelled(own)


def notify_callers(task_ids: Iterable[str]) -> None:
    """Answer for jobs that were set aside: their callers, links and chords get ``PoisonedJob``."""
    for job in dead_jobs().find(job_ids=list(task_ids)):
        try:
            _fail(job)
        except redis.RedisError:
            raise
        except Exception:  # one malformed message must not keep other callers from being notified
            logger.exception(Event("links_not_told", task_id=job.id, reason="the job was set aside"))
        dead_jobs().mark_notified([job.id])


def _fail(job: DeadJob) -> None:
    request = request_of_message(job.message)
    logger.error(Event("job_set_aside", task_id=job.id, reason=job.reason))
    backend = process_app().backend
    error = PoisonedJob(f"set aside: {job.reason}; look at it with: dspyq dead show {job.id}")
    stored = backend.get_task_meta(job.id, cache=False)["result"]
    _release(job.id, request)
    # An unknown task's caller has its error from the worker that received it; links and chords get the same one here.
    backend.mark_as_failure(job.id, stored if isinstance(stored, NotRegistered) else error, request=request)


def replay_dead_jobs(task_ids: Iterable[str]) -> int:
    """Queue jobs that were set aside as if they were new; return how many.

    Their failures are withdrawn, so that callers get the new outcome from now on.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    ids = list(task_ids)
    return sum(on_each_spine(lambda: _replay_here(ids)))


def _replay_here(task_ids: Sequence[str]) -> int:
    """Replay those of these jobs that are on the active spine."""
    tasks = {job.id: _failed_with(job) for job in dead_jobs().find(job_ids=task_ids)}
    failed = list(chain.from_iterable(tasks.values()))
    if get_settings().is_one_redis and process_spines() is None:
        failures = set(find_failures(answers_client(), failed))
        return dead_jobs().replay(tasks, {job_id: [*failures.intersection(ids)] for job_id, ids in tasks.items()})
    # Before: once a job runs again, its new outcome may be stored at any time.
    for _, own in by_spine(failed, failed):
        withdraw_failures(answers_client(), own)
    return dead_jobs().replay(tasks)


def drop_dead_jobs(task_ids: Iterable[str]) -> int:
    """Forget jobs that were set aside; return how many."""
    ids = list(task_ids)
    return sum(on_each_spine(lambda: drop_dead_jobs_here(ids)))


def drop_dead_jobs_here(task_ids: Iterable[str]) -> int:
    """Forget those of these jobs that were set aside on the active spine; return how many."""
    found = [job.id for job in dead_jobs().find(job_ids=list(task_ids))]
    if unnotified := dead_jobs().unnotified(found):
        notify_callers(unnotified)  # or their callers would wait for ever
    process_leases().records.end(found, is_answered=True)
    return len(found)


def _failed_with(job: DeadJob) -> list[str]:
    """Return the tasks whose results state a job's failure: itself, and those behind it in its chain."""
    request = request_of_message(job.message)
    behind = request.chain if request else None
    failed = [job.id]
    for signature in behind if isinstance(behind, list) else ():
        match signature:
            case {"options": {"task_id": str(task_id)}}:
                failed.append(task_id)
    return failed


def _release(task_id: str, request: Context | None) -> None:
    stated = getattr(request, HEADER, None)
    if stated:
        process_claims().release(Header(**stated), Run(task_id), {"failures": 1})
