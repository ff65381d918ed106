"""Log entry for each finished task of the user's own; predictions log their own, and Celery logs failures."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Task, signals, states

from dspyq.config.privacy import exception_type
from dspyq.core.events import Event
from dspyq.core.names import TASK_NAME
from dspyq.delivery.task_run import task_run

logger = logging.getLogger("dspyq.tasks")


def connect() -> None:
    """Connect this module to Celery's signals of tasks."""
    signals.task_postrun.connect(_end, weak=False)


def _end(task: Task, task_id: str, state: str, retval: Any, **_: Any) -> None:
    if task.name == TASK_NAME or state == states.FAILURE:
        return
    seconds = time.monotonic() - task_run(task.request).began_at
    error = exception_type(repr(retval)) if isinstance(retval, BaseException) else None
    logger.info(
        Event(
            "task",
            task=task.name,
            task_id=task_id,
            duration_ms=round(seconds * 1000, 3),
            status=(state or "unknown").lower(),
            error=error,
        )
    )
