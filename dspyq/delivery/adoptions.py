"""Tasks that another application sent, between kombu's list and our records."""

from __future__ import annotations

import logging
from collections import deque

import redis

from dspyq.core.events import Event
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.delivery.records import QueuedJob, Records
from dspyq.errors import InvalidRequest

logger = logging.getLogger(__name__)


class Adoptions:
    """Jobs that are popped from a list already and not stored yet; each beat stores them where Redis refused before."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedJob] = deque()

    def store(self, job: QueuedJob, records: Records) -> None:
        """Store a job, or keep it for the next beat if Redis does not take it now."""
        try:
            _store(job, records)
        except redis.RedisError as error:
            logger.warning(Event("adoption_waits_for_redis", task_id=job.id, error=type(error).__name__))
            self._waiting.append(job)

    def store_waiting(self, records: Records) -> None:
        """Store the jobs that wait.

        Raises:
            redis.RedisError: If Redis does not take them; they wait on.
        """
        while self._waiting:
            _store(self._waiting[0], records)
            self._waiting.popleft()


def _store(job: QueuedJob, records: Records) -> None:
    try:
        records.put(job)
    except InvalidRequest as error:  # too large, or another question's id: it has no caller here to raise to
        logger.warning(Event("foreign_task_refused", task_id=job.id, error=type(error).__name__))
        tolerate("list_item", error)


@per_runtime(is_of_part=True)
def process_adoptions() -> Adoptions:
    """Return this process's."""
    return Adoptions()
