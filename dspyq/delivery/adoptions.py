"""Tasks that another application sent, between kombu's list and our records."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import suppress

import redis

from dspyq.core.events import Event
from dspyq.core.runtime import bound, per_runtime
from dspyq.core.tolerated import survived, tolerate
from dspyq.delivery.records import QueuedJob, Records
from dspyq.errors import InvalidRequest

logger = logging.getLogger(__name__)


_PAUSE_SECONDS = 1.0


class Adoptions:
    """Jobs that are popped from a list already and not stored yet; each beat stores them where Redis refused before."""

    def __init__(self) -> None:
        self._waiting: deque[QueuedJob] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

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
        with self._lock:
            while self._waiting:
                _store(self._waiting[0], records)
                self._waiting.popleft()

    def keep_storing(self, records: Records) -> None:
        """Have a thread store the jobs that wait, as no beat of this process does: it does not serve their spine."""
        if self._waiting and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(
                target=bound(self._store_on), args=(records,), name="dspyq-adoptions", daemon=True
            )
            self._thread.start()

    def _store_on(self, records: Records) -> None:
        while self._waiting:
            time.sleep(_PAUSE_SECONDS)
            with survived("adoptions_thread"), suppress(redis.RedisError):
                self.store_waiting(records)


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
