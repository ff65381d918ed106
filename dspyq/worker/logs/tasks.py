"""An entry for each task of the user's own that ends; a prediction writes one itself, and a failure Celery."""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Task, signals, states

from dspyq.celery_app.application import TASK_NAME
from dspyq.config.privacy import exception_type
from dspyq.core.events import Event

logger = logging.getLogger("dspyq.tasks")


def connect() -> None:
    """Have Celery call this module for each task."""
    signals.task_postrun.connect(_end, weak=False)


def _end(task: Task, task_id: str, state: str, retval: Any, **_: Any) -> None:
    if task.name == TASK_NAME or state == states.FAILURE:
        return
    seconds = time.monotonic() - getattr(task.request, "began_at", time.monotonic())
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
