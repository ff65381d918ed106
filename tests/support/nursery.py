"""Forks Python processes from one that has imported Celery and DSPy already: a start takes a fifth of its time then.

A fork runs a module as ``python -m`` does, from its command line on, in a session, an environment and a directory of
its own and with outputs of its own; what it reads, builds and connects to is its own too. Only what follows from the
code alone is shared: imports, schemas, texts of scripts, the command line.
Where no nursery runs, processes are spawned; those whose command line or start is what is tested always are.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from tests.support import watchdog

#: Names the nursery's socket, also for the processes that faults run in.
SOCKET_VARIABLE = "TEST_NURSERY"
#: Names the folder of a nursery that several processes share, the workers of one test run.
SHARED_VARIABLE = "TEST_SHARED_NURSERY"
#: Names modules that a fork imports before its own runs.
IMPORTS_VARIABLE = "TEST_IMPORTS"
_REPOSITORY = Path(__file__).parents[2]
_START_TIMEOUT_SECONDS = 60.0
_LARGEST_MESSAGE_BYTES = 2**20


class Fork:
    """The used part of ``subprocess.Popen``, for a process that is the nursery's child."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        directory: Path,
        output: Path,
        errors: Path | None = None,
    ) -> None:
        """Have a module run.

        Args:
            module: Its name, as of ``python -m``.
            arguments: Its command line.
            env: Its whole environment.
            directory: Its working directory, and the first place of its modules.
            output: The file that its standard output is added to.
            errors: The same for its standard error; ``output`` where left out.
        """
        order = {
            "module": module,
            "arguments": list(arguments),
            "env": dict(env),
            "directory": str(directory),
            "output": str(output),
            "errors": str(errors or output),
        }
        self.returncode: int | None = None
        self._reading = threading.Lock()
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[SOCKET_VARIABLE])
        self._connection.sendall(json.dumps(order).encode() + b"\n")
        self.pid = int(self._connection.recv(64))

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        return self._ended_within(0)

    def wait(self, timeout_seconds: float) -> int:
        """Wait for its end and return the exit status.

        Raises:
            subprocess.TimeoutExpired: If it does not come.
        """
        status = self._ended_within(timeout_seconds)
        if status is None:
            raise subprocess.TimeoutExpired("fork", timeout_seconds)
        return status

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait(60)

    def _ended_within(self, timeout_seconds: float) -> int | None:
        if self.returncode is None:
            readable, _, _ = select.select([self._connection], [], [], timeout_seconds)
            if readable:
                with self._reading:  # several threads may look, and one of them reads
                    if self.returncode is None:
                        told = self._connection.recv(64)
                        self.returncode = int(told) if told else -signal.SIGKILL  # with its nursery
        return self.returncode

    def __del__(self) -> None:
        """Close the connection: not before, for another thread may still wait on it."""
        self._connection.close()


def run_fork(
    module: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: Path,
    directory: Path | None = None,
    timeout_seconds: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a module to its end, as ``subprocess.run`` does; its outputs are kept in a folder.

    It runs in ``directory``; in this process's own where left out.
    """
    own = Path(tempfile.mkdtemp(prefix="command-", dir=folder))
    output, errors = own / "output", own / "errors"
    process = Fork(module, arguments, env=env, directory=directory or Path.cwd(), output=output, errors=errors)
    watchdog.tie(process.pid)
    try:
        status = process.wait(timeout_seconds)
    finally:
        process.kill()
        watchdog.untie(process.pid)
    return subprocess.CompletedProcess(arguments, status, output.read_text(), errors.read_text())


def is_running() -> bool:
    """Return True if there is a nursery to fork from."""
    return SOCKET_VARIABLE in os.environ


@contextlib.contextmanager
def running_nursery(folder: Path) -> Iterator[Path]:
    """Run a nursery, for this process and those it starts, and give the path of its socket; one is enough."""
    if is_running():
        yield Path(os.environ[SOCKET_VARIABLE])
        return
    with _of_the_run() if SHARED_VARIABLE in os.environ else _of_its_own(folder) as path:
        os.environ[SOCKET_VARIABLE] = str(path)
        try:
            yield path
        finally:
            del os.environ[SOCKET_VARIABLE]


@contextlib.contextmanager
def shared_nursery() -> Iterator[None]:
    """Have the processes that this one starts share a nursery; the first that needs it starts it.

    It ends with this process.
    """
    with tempfile.TemporaryDirectory(prefix="nursery-") as name:
        folder = Path(name)
        os.mkfifo(folder / "life")
        life = os.open(folder / "life", os.O_RDWR)  # the nursery's input, which closes with this process
        os.environ[SHARED_VARIABLE] = name
        try:
            yield
        finally:
            del os.environ[SHARED_VARIABLE]
            os.close(life)


@contextlib.contextmanager
def _of_its_own(folder: Path) -> Iterator[Path]:
    path = folder / "nursery"
    # Its input closes with this process, however that ends, and so it ends too.
    process = _start(path, subprocess.PIPE)
    try:
        yield path
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _of_the_run() -> Iterator[Path]:
    folder = Path(os.environ[SHARED_VARIABLE])
    path = folder / "nursery"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with (folder / "life").open("rb") as life:
                _start(path, life)
    yield path


def _start(path: Path, life: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a nursery that lives as long as its input, and wait until it serves."""
    command = [sys.executable, "-u", "-m", "tests.support.nursery", str(path)]
    process = subprocess.Popen(
        command, stdin=life, env=_environment_of_its_own(), cwd=_REPOSITORY, start_new_session=True
    )
    end = time.monotonic() + _START_TIMEOUT_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise RuntimeError("the nursery does not start")
        time.sleep(0.02)
    return process


def _environment_of_its_own() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("DSPYQ_", "TEST_"))}


def main(path: str) -> None:
    """Import what the processes under test import, then fork one for each order and tell how it ended."""
    _import_what_most_import()
    _build_what_most_build()
    children: dict[int, socket.socket] = {}
    listener = socket.socket(socket.AF_UNIX)
    reading_end, writing_end = os.pipe()
    os.set_blocking(reading_end, False)
    os.set_blocking(writing_end, False)
    signal.set_wakeup_fd(writing_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.freeze()
    listener.bind(f"{path}.new")
    listener.listen()
    Path(f"{path}.new").rename(path)  # whoever sees it can connect
    while True:
        readable, _, _ = select.select([listener, reading_end, sys.stdin], [], [])
        if sys.stdin in readable:
            return
        if reading_end in readable:
            os.read(reading_end, 4096)
            _tell_of_the_ended(children)
        if listener in readable:
            connection, _ = listener.accept()
            with connection.makefile("rb") as stream:
                order = json.loads(stream.readline(_LARGEST_MESSAGE_BYTES))
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number in (reading_end, writing_end):
                    os.close(number)
                for each in (listener, connection, *children.values()):
                    each.close()
                _run(order)
            children[pid] = connection
            connection.sendall(str(pid).encode())


def _tell_of_the_ended(children: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            with children.pop(pid) as connection, contextlib.suppress(OSError):  # its owner may have ended before it
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _import_what_most_import() -> None:
    # Not dspyq.celery, which reads the configuration when it is imported.
    import tomllib

    import billiard.pool
    import celery.app.control
    import celery.app.log
    import celery.apps.worker
    import celery.bin.celery
    import celery.bin.worker
    import celery.concurrency.thread
    import celery.worker
    import celery.worker.autoscale
    import celery.worker.components
    import celery.worker.consumer
    import celery.worker.consumer.delayed_delivery
    import celery.worker.strategy
    import dspy

    # Loaded by a producer's first question, by a worker as it starts, and by a command as it runs.
    import dspyq.batch.run
    import dspyq.celery_app.application
    import dspyq.celery_app.messaging
    import dspyq.celery_app.result_backend
    import dspyq.cli.batch.display
    import dspyq.cli.experiment_status
    import dspyq.cli.main
    import dspyq.client.predict
    import dspyq.config.schema
    import dspyq.delivery.transport
    import dspyq.lane.service
    import dspyq.worker.body
    import dspyq.worker.job_request
    import dspyq.worker.lifecycle
    import dspyq.worker.monitoring.scoring
    import dspyq.worker.monitoring.serving
    import dspyq.worker.refereeing
    import dspyq.worker.versions

    del billiard, celery, dspy, dspyq, tomllib


def _build_what_most_build() -> None:
    from dspy.clients.model_metadata import source_info
    from pydantic import BaseModel

    from dspyq.cli.main import whole_command
    from dspyq.store.script_text import read_script_file

    whole_command()
    source_info()  # reads DSPy's table of models
    models = [BaseModel]
    for model in models:  # which grows meanwhile
        models += model.__subclasses__()
        if model.__module__.startswith("dspyq."):
            model.model_rebuild()
    for file in (_REPOSITORY / "dspyq").glob("*/lua/*.lua"):
        read_script_file(f"dspyq.{file.parent.parent.name}", file.stem)


def _run(order: Mapping[str, Any]) -> NoReturn:
    status: object = 1
    try:
        os.setsid()
        random.seed()
        os.environ.clear()
        os.environ.update(order["env"])
        time.tzset()
        zoneinfo.reset_tzpath()
        os.chdir(order["directory"])
        places = filter(None, order["env"].get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:1] = [order["directory"], *places]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        outputs = [os.open(order[name], flags, 0o600) for name in ("output", "errors")]
        for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (outputs[0], 1), (outputs[1], 2)):
            os.dup2(number, target)
            os.close(number)
        for name in order["env"].get(IMPORTS_VARIABLE, "").split():
            importlib.import_module(name)
        sys.argv = [order["module"], *order["arguments"]]
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ending:
        status = ending.code
        if status is not None and not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
    except BaseException:  # noqa: BLE001 - as the interpreter does with what nobody caught
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]  # there is one
    finally:
        _end(status)


def _end(status: object) -> NoReturn:
    """End as the interpreter does, its threads and exit functions first, without going on in the nursery."""
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - what the interpreter itself calls
        atexit._run_exitfuncs()  # noqa: SLF001 - as above
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    main(sys.argv[1])
