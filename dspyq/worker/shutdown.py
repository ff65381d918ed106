"""A worker's end: what runs may finish, the rest goes back at once, and a stuck thread keeps nobody waiting."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.delivery.leases import Leases, process_leases
from dspyq.worker.logs import setup as logs
from dspyq.worker.scheduled_batches import Supervisor, process_supervisor

logger = logging.getLogger("dspyq.shutdown")

_LOOK_SECONDS = 0.1
#: What storing results and closing connections may take once nothing runs any more, before the process is ended.
_CLOSE_SECONDS = 10.0


def begin(exitcode: int = 0, **_: Any) -> None:
    """Begin the end when the worker is told to: Celery stops consuming and waits for its threads meanwhile."""
    logger.info(Event("shutdown_begun", grace_seconds=get_settings().delivery.shutdown_grace_seconds))
    arguments = (process_leases(), process_supervisor(), exitcode)
    threading.Thread(target=_end, args=arguments, name="dspyq-shutdown", daemon=True).start()


def wait_for_batches() -> None:
    """Wait until the batches have given their times back, for in a container they would be killed with the worker."""
    process_supervisor().wait(get_settings().delivery.shutdown_grace_seconds + _CLOSE_SECONDS / 2)


def _end(leases: Leases, batches: Supervisor, exitcode: int) -> None:
    batches.stop()
    end_at = time.monotonic() + get_settings().delivery.shutdown_grace_seconds
    while True:
        _hand_back(leases, also_begun=False)  # again and again: a last bell may still be answered
        if leases.held_count + batches.running_count == 0 or time.monotonic() > end_at:
            break
        time.sleep(_LOOK_SECONDS)
    if leases.held_count == 0:
        time.sleep(_CLOSE_SECONDS)
    else:
        _hand_back(leases, also_begun=True)
    # Nothing can end a thread that is stuck, and Celery would wait for it without end.
    logger.warning(Event("shutdown_forced", reason="threads were still busy; their jobs were handed back"))
    logs.close()
    os._exit(exitcode)


def _hand_back(leases: Leases, *, also_begun: bool) -> None:
    try:
        number = leases.hand_back(also_begun=also_begun)
    except redis.RedisError as error:
        logger.warning(Event("jobs_not_handed_back", error=type(error).__name__))
        return
    if number:
        logger.info(Event("jobs_handed_back", jobs=number))
