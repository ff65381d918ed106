"""Forks workers from one process that has imported Celery and DSPy already: killing hundreds costs no minutes then.

A fork runs ``celery -A workers worker`` from its command line on, in a session, an environment and with an output of
its own; what it reads, builds and connects to is its own too. Only the imports are shared.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tests.support import watchdog
from tests.support.processes import REPOSITORY, LocalProcess
from tests.support.worker import Worker

#: Names the nursery's socket, for the processes that the faults run in.
SOCKET_VARIABLE = "TEST_CHAOS_NURSERY"
_LARGEST_ORDER_BYTES = 2**20
_EXIT_POLL_SECONDS = 0.02


@contextlib.contextmanager
def running_nursery(folder: Path) -> Iterator[Path]:
    """Run a nursery and give the path of its socket."""
    path = folder / "nursery"
    command = [sys.executable, "-m", "tests.chaos.nursery", str(path)]
    with LocalProcess("nursery", command, ready_line="nursery ready", env=_own_environment()) as process:
        process.ready(60)
        yield path


class ForkedWorker(Worker):
    """A worker that a nursery forks; otherwise as ``Worker``."""

    def start(self) -> None:
        """Have it forked; ``ready()`` waits for its line."""
        self._logs_start = self.log_file.stat().st_size
        order = {"arguments": self._arguments[1:], "env": dict(self._env or {}), "log": str(self.log_file)}
        self._process: Any = _Fork(order)
        self.pid = self._process.pid
        watchdog.tie(self.pid)
        self._is_tied = True


class _Fork:
    """What ``LocalProcess`` uses of ``Popen``, for a process that is not this one's child.

    Its end of the connection closes when it dies, however it does.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[SOCKET_VARIABLE])
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        self.pid = int(self._connection.recv(64))
        self._has_ended = False

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout_seconds: float) -> int:
        status = self._ended(timeout_seconds)
        if status is None:
            raise subprocess.TimeoutExpired("celery", timeout_seconds)
        return status

    def terminate(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _ended(self, timeout_seconds: float) -> int | None:
        if not self._has_ended:
            readable, _, _ = select.select([self._connection], [], [], timeout_seconds)
            self._has_ended = bool(readable)
        return 0 if self._has_ended else None  # what it ended with, only its parent knows


def _own_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("DSPYQ_", "TEST_"))}


def main(path: str) -> None:
    """Import what every worker imports, then fork one for each order."""
    _import_what_workers_import()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks what became of them
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    gc.freeze()
    sys.stdout.write("nursery ready\n")
    sys.stdout.flush()
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            order = json.loads(stream.readline(_LARGEST_ORDER_BYTES))
            pid = os.fork()
            if pid == 0:
                listener.close()
                _become_worker(order, connection)
            connection.sendall(str(pid).encode())


def _import_what_workers_import() -> None:
    # Nothing of workers/, which reads the configuration when it is imported.
    import celery.bin.worker
    import celery.concurrency.thread
    import celery.worker
    import celery.worker.consumer
    import dspy

    import config.celery
    import producer

    del celery, dspy, config, producer


def _become_worker(order: Mapping[str, Any], connection: socket.socket) -> NoReturn:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    random.seed()
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(REPOSITORY)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND)
    for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(number, target)
    os.set_inheritable(connection.fileno(), False)
    sys.argv = ["celery", *order["arguments"]]
    status: object = 1
    try:
        from celery.__main__ import main as celery

        status = celery()
    except SystemExit as ending:
        status = ending.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    main(sys.argv[1])
