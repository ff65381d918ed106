"""Checks for the jobs of awaited results: without them a wait for an evicted answer would never end."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import TypedDict

import redis

from dspyq.core.events import Event
from dspyq.core.runtime import current
from dspyq.store.clients import jobs_client, which_exist
from dspyq.store.keys import job_key
from dspyq.store.spines import on_spine, place_of, process_spines

logger = logging.getLogger("dspyq.waiting")

#: Seconds before the first check; each further pause is twice as long, up to the longest.
FIRST_CHECK_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 60.0


class AwaitedOptions(TypedDict, total=False):
    """Keyword arguments of the waiter's ``add`` and ``wait``, as a handle states them."""

    is_sent: bool
    asked_at: float
    question: str


class JobCheck:
    """Times of the checks for one job. Make it where the job is.

    Attributes:
        jobs: The Redis of the job.
        runtime: That of the job's spine, whose names of keys hold there.
    """

    def __init__(self, jobs: redis.Redis) -> None:
        self.jobs = jobs
        self.runtime = current()
        self._pause_seconds = FIRST_CHECK_SECONDS
        self._at = time.monotonic() + FIRST_CHECK_SECONDS

    @property
    def is_due(self) -> bool:
        """Return True if its time has come."""
        return self._at <= time.monotonic()

    def postpone(self) -> None:
        """Set the time of the next check."""
        self._at = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)


def check_of(question: str, task_id: str, otherwise: redis.Redis) -> JobCheck:
    """Return the check for a question's job, which may be on another spine than its task's id.

    Args:
        question: Its input hash; empty where it is not known.
        task_id: The task.
        otherwise: The Redis of the task's id.
    """
    if not question or process_spines() is None:
        return JobCheck(otherwise)
    with on_spine(place_of(question, task_id)):
        return JobCheck(jobs_client())


def find_jobless(jobs: redis.Redis, task_ids: Collection[str]) -> list[str]:
    """Return the tasks that have no job any more; none of them if Redis does not answer.

    Args:
        jobs: The Redis of jobs.
        task_ids: The tasks.
    """
    if not task_ids:
        return []
    try:
        with_job = which_exist(jobs, job_key(""), task_ids)
    except redis.RedisError as error:  # answers may live on another Redis, and still arrive
        logger.warning(Event("jobs_not_looked_for", error=type(error).__name__))
        return []
    return [task_id for task_id in task_ids if task_id not in with_job]
