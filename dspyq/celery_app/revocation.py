"""Ends jobs from outside, durably: also while no worker is up."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import redis
from celery.app.task import Context

from dspyq.cache.claims import Run, process_claims
from dspyq.celery_app.application import HEADER, app
from dspyq.core.events import Event
from dspyq.delivery.dead import DeadJob, dead_jobs
from dspyq.delivery.job_messages import read_request
from dspyq.errors import PoisonedJob
from dspyq.prediction.request import Header

logger = logging.getLogger(__name__)


def revoke(task_ids: Iterable[str]) -> None:
    """End jobs for everyone: what waits does not run, what runs stores nothing, and who waits is told."""
    ids = list(task_ids)
    for task_id, message in zip(ids, dead_jobs().end(ids), strict=True):
        request = read_request(message) if message else None
        _release(task_id, request)
        if message:  # an answer that Redis has forgotten must not become an error that the cache serves
            app.backend.mark_as_revoked(task_id, "revoked", request=request)


def tell(task_ids: Iterable[str]) -> None:
    """Answer for jobs that were set aside: their callers, links and chords get ``PoisonedJob``."""
    for job in dead_jobs().find(job_ids=list(task_ids)):
        try:
            _fail(job)
        except redis.RedisError:
            raise
        except Exception:  # a message as strange as that must not keep others from being told
            logger.exception(Event("links_not_told", task_id=job.id, reason="the job was set aside"))
        dead_jobs().told([job.id])


def _fail(job: DeadJob) -> None:
    request = read_request(job.message)
    logger.error(Event("job_set_aside", task_id=job.id, reason=job.reason))
    error = PoisonedJob(f"set aside: {job.reason}; look at it with: dspyq dead show {job.id}")
    _release(job.id, request)
    app.backend.mark_as_failure(job.id, error, request=request)


def drop(task_ids: Iterable[str]) -> int:
    """Forget jobs that were set aside; return how many."""
    found = [job.id for job in dead_jobs().find(job_ids=list(task_ids))]
    if untold := dead_jobs().untold(found):
        tell(untold)  # or their callers would wait for ever
    dead_jobs().end(found)
    return len(found)


def _release(task_id: str, request: Context | None) -> None:
    stated = request.get(HEADER) if request else None
    if stated:
        process_claims().release(Header(**stated), Run(task_id), {"failures": 1})
