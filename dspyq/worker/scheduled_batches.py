"""Scheduled batches: the task of beat's tick, and the processes that run the batches.

A batch runs for hours, so it takes no thread of the pool: the tick claims what is due, starts a process for it and is
done. The process keeps the claim itself and may go on while this worker is busy or frozen. It is tied to the worker by
its standard input: when that closes, however the worker ended, it stops and gives its time back, and the next tick has
it resumed, here or elsewhere.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from kombu.exceptions import OperationalError

from dspyq.batch.schedule import ClaimedTime, Schedule, process_schedule
from dspyq.celery_app.application import app
from dspyq.config.batches import ScheduledBatch
from dspyq.config.settings import get_settings
from dspyq.core.crontab import Occurrence
from dspyq.core.events import Event
from dspyq.core.names import BATCH_QUEUE, TICK_NAME
from dspyq.core.private import open_private
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import survived

logger = logging.getLogger("dspyq.batches")

#: Module that runs a claimed time, with name, label and token as arguments.
COMMAND = (sys.executable, "-m", "dspyq.cli.batch.scheduled")
#: Exit statuses of an ended batch. With any other, the time was released or the process died: the next tick handles it.
_ENDED = frozenset({0, 1, 2})
_LOOK_SECONDS = 0.05
_RENEWALS_PER_LEASE = 3


class Supervisor:
    """Runs this worker's batches. Any thread may call any method.

    Args:
        schedule: The claims.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._running: dict[ClaimedTime, subprocess.Popen[bytes]] = {}
        self._starting = threading.Lock()  # a time is claimed and its process known, or the worker ends
        self._is_closing = False

    @property
    def running_count(self) -> int:
        """Number of running processes."""
        return len(self._running)

    def start_due(self, batch: ScheduledBatch) -> None:
        """Claim a due time of a batch and start it, unless none is due or another worker runs it."""
        with self._starting:
            claimed = None if self._is_closing else self._schedule.claim(batch)
            if claimed is None:
                return
            _, output = batch.files_of(Occurrence.of_label(claimed.label, batch.crontab.zone).shown)
            log = output.with_name(f"{output.name}.log")
            try:
                process = _start(claimed, log)
            except OSError as error:
                _say("scheduled_batch_not_started", claimed, is_warning=True, error=error.strerror)
                self._schedule.end(claimed, "failed", exit_code=2, note=f"cannot write {log}: {error.strerror}")
                return
            self._running[claimed] = process
        _say("scheduled_batch_started", claimed, pid=process.pid)
        threading.Thread(
            target=self._watch, args=(batch, claimed, process), name=f"batch {batch.name}", daemon=True
        ).start()

    def stop(self) -> None:
        """Stop all of them, which releases their times, and start no more."""
        with self._starting:
            self._is_closing = True
            running = list(self._running.values())
        for process in running:
            _close_input(process)

    def wait(self, timeout_seconds: float) -> None:
        """Wait until all of them have ended."""
        end_at = time.monotonic() + timeout_seconds
        while self._running and time.monotonic() < end_at:
            time.sleep(_LOOK_SECONDS)

    def _watch(self, batch: ScheduledBatch, claimed: ClaimedTime, process: subprocess.Popen[bytes]) -> None:
        status = self._wait(claimed, process)
        with survived("batch_thread"):
            self._record_end(claimed, status)
        del self._running[claimed]
        _close_input(process)
        _say("scheduled_batch_ended", claimed, exit_status=status)
        if status in _ENDED:
            with survived("batch_thread"):
                self._go_on(batch)

    def _wait(self, claimed: ClaimedTime, process: subprocess.Popen[bytes]) -> int:
        """Wait until a process has ended and return its status.

        Meanwhile this thread renews its claim too: on a busy machine the process itself may start late.
        """
        while True:
            try:
                return process.wait(self._schedule.lease_seconds / _RENEWALS_PER_LEASE)
            except subprocess.TimeoutExpired:
                with survived("batch_thread"):
                    self._renew(claimed)

    def _renew(self, claimed: ClaimedTime) -> None:
        try:
            self._schedule.renew(claimed)
        except redis.RedisError as error:
            _say("scheduled_batch_not_renewed", claimed, is_warning=True, error=type(error).__name__)

    def _record_end(self, claimed: ClaimedTime, status: int) -> None:
        """Record that a process ended; if it has done so itself, this changes nothing."""
        try:
            self._schedule.end(claimed, "lost", note=f"its process ended with {status} and recorded no reason")
        except redis.RedisError as error:
            _say("scheduled_batch_end_not_told", claimed, is_warning=True, error=type(error).__name__)

    def _go_on(self, batch: ScheduledBatch) -> None:
        """Start the next waiting time: missed ones run one after another."""
        try:
            self.start_due(batch)
        except redis.RedisError as error:
            logger.warning(Event("scheduled_batch_waits_for_tick", batch=batch.name, error=type(error).__name__))


def _close_input(process: subprocess.Popen[bytes]) -> None:
    """Stop a batch: it stops when its standard input closes."""
    if process.stdin:
        with suppress(OSError):  # it has ended
            process.stdin.close()


def _say(event: str, claimed: ClaimedTime, *, is_warning: bool = False, **fields: Any) -> None:
    level = logging.WARNING if is_warning else logging.INFO
    logger.log(level, Event(event, batch=claimed.name, time=claimed.label, **fields))


def _start(claimed: ClaimedTime, log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", opener=open_private) as file:
        return subprocess.Popen(  # noqa: S603 - the command is ours
            [*COMMAND, *claimed],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal goes to the worker, which then stops it
        )


@per_runtime
def process_supervisor() -> Supervisor:
    """Return this process's supervisor."""
    return Supervisor(process_schedule())


@app.task(name=TICK_NAME, ignore_result=True)  # type: ignore[untyped-decorator]  # celery ships no types
def tick() -> None:
    """Start every scheduled batch whose time has come."""
    for batch in get_settings().batches.values():
        process_supervisor().start_due(batch)


def begin_beat(**_: Any) -> None:
    """Send a tick as soon as beat starts, so that a missed night need not wait for the next minute."""
    if not get_settings().batches:
        return
    try:
        app.send_task(TICK_NAME, queue=BATCH_QUEUE)
    except OperationalError as error:
        logger.warning(Event("first_tick_not_sent", error=f"{type(error).__name__}: {error}"))
