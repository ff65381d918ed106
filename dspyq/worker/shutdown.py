"""Shutdown of a worker: running jobs may finish, the rest go back at once, and a stuck thread does not delay it."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.tolerated import survived
from dspyq.delivery.served_spines import HeldRuns, process_held_runs
from dspyq.worker.logs import setup as logs
from dspyq.worker.scheduled_batches import Supervisor, process_supervisor

logger = logging.getLogger("dspyq.shutdown")

_LOOK_SECONDS = 0.1
#: Time to store results and close connections once nothing runs, before the process is killed.
_CLOSE_SECONDS = 10.0


def begin(exitcode: int = 0, **_: Any) -> None:
    """Begin the shutdown on a signal; meanwhile, Celery stops consuming and waits for its threads."""
    logger.info(Event("shutdown_begun", grace_seconds=get_settings().delivery.shutdown_grace_seconds))
    arguments = (process_held_runs(), process_supervisor(), exitcode)
    threading.Thread(target=_end, args=arguments, name="dspyq-shutdown", daemon=True).start()


def wait_for_batches() -> None:
    """Wait until the batches have released their times; in a container they would be killed with the worker."""
    process_supervisor().wait(get_settings().delivery.shutdown_grace_seconds + _CLOSE_SECONDS / 2)


def _end(held: HeldRuns, batches: Supervisor, exitcode: int) -> None:
    batches.stop()
    end_at = time.monotonic() + get_settings().delivery.shutdown_grace_seconds
    while True:
        with survived("shutdown_thread"):
            _hand_back(held, also_begun=False)  # again and again: a last bell may still be answered
        if held.held_count + batches.running_count == 0 or time.monotonic() > end_at:
            break
        time.sleep(_LOOK_SECONDS)
    if held.held_count == 0:
        time.sleep(_CLOSE_SECONDS)
    else:
        with survived("shutdown_thread"):
            _hand_back(held, also_begun=True)
    # A stuck thread cannot be ended, and Celery would wait for it forever.
    logger.warning(Event("shutdown_forced", reason="threads were still busy; their jobs were handed back"))
    logs.close()
    os._exit(exitcode)


def _hand_back(held: HeldRuns, *, also_begun: bool) -> None:
    for leases in held.leases:
        try:
            number = leases.hand_back(also_begun=also_begun)
        except redis.RedisError as error:
            logger.warning(Event("jobs_not_handed_back", error=type(error).__name__))
            continue
        if number:
            logger.info(Event("jobs_handed_back", jobs=number))
