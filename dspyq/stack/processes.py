"""Shared parts of ``dspyq demo`` and ``dspyq up``: wait for a worker, describe a process's end, exit on SIGTERM."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from dspyq.errors import ConfigurationError, DspyqError
from dspyq.stack.embedded.log import last_lines
from dspyq.stack.embedded.supervised_process import SupervisedProcess

WORKER_COMMAND = "celery -A dspyq worker"
READY_TIMEOUT_SECONDS = 60.0
#: Time for a worker to finish its jobs; jobs that it leaves go to another worker.
GRACE_SECONDS = 10.0
_PAUSE_SECONDS = 0.5
_SHOWN_LOG_LINES = 12
_SIGNAL_EXIT_STATUS = 128
#: Start of the lines in which a worker or a command gives the reason for not starting.
FAULT_MARK = "dspyq: "


class StackFailed(DspyqError):
    """A process of the stack ended or did not become ready; the message names it and contains its last output."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let ``SIGTERM`` run the clean-up that Ctrl-C runs."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(_SIGNAL_EXIT_STATUS + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_worker(worker: SupervisedProcess, log: Path) -> None:
    """Wait until a worker answers.

    Raises:
        ConfigurationError: If it refuses the configuration.
        StackFailed: If it ends otherwise, or does not answer in time.
    """
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not worker_answers():
        if worker.poll() is None and time.monotonic() < deadline:
            continue
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if faults := [line.removeprefix(FAULT_MARK) for line in lines if line.startswith(FAULT_MARK)]:
            raise ConfigurationError(faults)
        raise StackFailed(describe_end("the worker", worker.poll(), log))


def worker_answers() -> bool:
    """Return True if a live worker takes jobs from some queue; wait half a second before the answer is no."""
    from dspyq.delivery.queues import FleetQueues  # noqa: PLC0415 - its import must come after the settings' environment is complete

    if any(queue.is_served for queue in FleetQueues().all()):
        return True
    time.sleep(_PAUSE_SECONDS)
    return False


def describe_end(name: str, status: int | None, log: Path | None = None) -> str:
    """Describe the unexpected end of a process, with the end of its log.

    Args:
        name: Its name.
        status: Its exit status as in a shell; None if it runs but did not become ready.
        log: Its log, if it has one.
    """
    if status is None:
        said = f"{name} did not become ready"
    elif status > _SIGNAL_EXIT_STATUS:
        said = f"{name} was ended by {signal.Signals(status - _SIGNAL_EXIT_STATUS).name}"
    else:
        said = f"{name} ended by itself with status {status}"
    if log is None:
        return said
    with log.open("rb") as file:
        return f"{said}; the end of {log}:" + "".join(f"\n  {line}" for line in last_lines(file, _SHOWN_LOG_LINES))
