"""Local processes for tests, with the interface that pytest-celery's nodes expect of a container."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from tests.support import nursery, watchdog

REPOSITORY = Path(__file__).parents[2]
POLL_SECONDS = 0.02
READY_TIMEOUT_SECONDS = 90.0
STOP_TIMEOUT_SECONDS = 15.0


def free_port(count: int = 1) -> int:
    """Return the first of so many consecutive loopback ports that nothing uses now.

    They are below those that the kernel gives to outgoing connections, which would take one before it is listened at.
    """
    while True:
        first = random.randrange(15_000, 32_000)  # noqa: S311 - no secret
        with contextlib.ExitStack() as listeners:
            try:
                for port in range(first, first + count):
                    listeners.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


def wait_until(condition: Callable[[], Any], timeout_seconds: float, waiting_for: str | Callable[[], str]) -> Any:
    """Wait until a condition is true and return what it returned.

    Args:
        condition: Asked every 20 ms.
        timeout_seconds: How long to ask.
        waiting_for: The error's text; a function where it is only known then.

    Raises:
        TimeoutError: If it stays false.
    """
    end = time.monotonic() + timeout_seconds
    while not (outcome := condition()):
        if time.monotonic() >= end:
            text = waiting_for() if callable(waiting_for) else waiting_for
            raise TimeoutError(f"not within {timeout_seconds:g} s: {text}")
        time.sleep(POLL_SECONDS)
    return outcome


class LocalProcess:
    """A process in a group of its own, with its output in a file.

    It ends with the context, with ``close()`` and, whatever happens, with the test run (see ``watchdog``). Signals go
    to the whole group, so a pool's children stop, freeze and die with it.

    ``env`` is its whole environment; this process's where it is left out. ``module`` names the Python module that its
    command runs, where a fork of the test run's nursery may run it instead (see ``nursery``).

    Attributes:
        name: Names it in errors.
        id: What pytest-celery prints of a container.
        celeryconfig: What pytest-celery asks a broker's or backend's container for.
        pid: The process, which leads its group.
    """

    _alive: ClassVar[list[LocalProcess]] = []

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        ready_line: str,
        env: Mapping[str, str] | None = None,
        directory: Path = REPOSITORY,
        celeryconfig: dict[str, Any] | None = None,
        module: str | None = None,
    ) -> None:
        self.name = name
        self.id = name.ljust(12, "0")
        self.celeryconfig = celeryconfig or {}
        self._arguments = list(arguments)
        self._ready_line = ready_line
        self._env = env
        self._directory = directory
        self._module = module
        self._logs_start = 0
        handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log")
        os.close(handle)
        self.log_file = Path(path)
        self.start()
        self._alive.append(self)

    @classmethod
    def alive(cls) -> list[LocalProcess]:
        """Return those that were started and not closed yet; they may have ended."""
        return list(cls._alive)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it; ``ready()`` waits for its line."""
        self._logs_start = self.log_file.stat().st_size
        self._process = self._fork(self._module) if self._module and nursery.is_running() else self._spawn()
        self.pid = self._process.pid
        watchdog.tie(self.pid)
        self._is_tied = True

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log_file.open("ab") as log:
            return subprocess.Popen(
                self._arguments,
                env=self._env,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _fork(self, module: str) -> nursery.Fork:
        arguments = self._arguments[1:]
        if arguments[:2] == ["-m", module]:
            arguments = arguments[2:]
        env = os.environ if self._env is None else self._env
        return nursery.Fork(module, arguments, env=env, directory=self._directory, output=self.log_file)

    @property
    def is_running(self) -> bool:
        """True if the process has not ended."""
        return self._process.poll() is None

    @property
    def status(self) -> str:
        """``running`` or ``exited``, as a container says it."""
        return "running" if self.is_running else "exited"

    @property
    def returncode(self) -> int | None:
        """The exit status; negative for a signal, None while it runs."""
        return self._process.poll()

    def reload(self) -> None:
        """Do nothing: the status is always fresh."""

    def logs(self) -> str:
        """Return its output since it was last started."""
        with self.log_file.open("rb") as log:
            log.seek(self._logs_start)
            return log.read().decode(errors="replace")

    def ready(self, timeout: float = READY_TIMEOUT_SECONDS) -> bool:
        """Wait for the line that says it serves."""
        self.wait_for_line(self._ready_line, timeout)
        return True

    def wait_for_line(self, text: str, timeout_seconds: float = READY_TIMEOUT_SECONDS) -> str:
        """Wait until its output has a whole line with this text, and return the line.

        Raises:
            TimeoutError: With the output, if the line does not come.
            RuntimeError: With the output, if the process ends before.
        """

        def find() -> str | None:
            was_running = self.is_running
            for line in self.logs().splitlines(keepends=True):
                if text in line and line.endswith("\n"):
                    return line.rstrip("\n")
            if not was_running:
                raise RuntimeError(f"{self.name} ended with {self.returncode} before {text!r}:\n{self.logs()}")
            return None

        line: str = wait_until(find, timeout_seconds, lambda: f"{text!r} in the output of {self.name}:\n{self.logs()}")
        return line

    def send(self, number: int) -> None:
        """Send a signal to the whole group, if it is still there."""
        if self._is_tied:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self) -> None:
        """Freeze it, as a host that swaps or a paused container."""
        self.send(signal.SIGSTOP)

    def cont(self) -> None:
        """Thaw it."""
        self.send(signal.SIGCONT)

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal, SIGKILL unless told, and wait until the process has ended."""
        self.send(_number(signal))
        self.wait()

    def terminate(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Ask the process itself to end, wait, and return its exit status."""
        if self.is_running:
            self._process.terminate()
        return self.wait(timeout_seconds)

    def wait(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Wait until it has ended and return its exit status.

        Raises:
            TimeoutError: With the output, if it does not end.
        """
        try:
            status = self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} did not end in {timeout_seconds:g} s:\n{self.logs()}") from None
        self.send(signal.SIGKILL)  # what it left behind in its group
        if self._is_tied:
            self._is_tied = False  # from now on its id may be another's
            watchdog.untie(self.pid)
        return status

    def restart(self, timeout: float = READY_TIMEOUT_SECONDS, *, force: bool = False) -> None:
        """End it, gently unless forced, and start it again on the same port, if it has one."""
        if force:
            self.kill()
        else:
            self.terminate()
        self.start()
        self.ready(timeout)

    def close(self) -> None:
        """End it, gently if it can, and remove its log; it may have ended already."""
        self.cont()
        try:
            self.terminate(STOP_TIMEOUT_SECONDS)
        except TimeoutError:
            self.kill()
        self.log_file.unlink(missing_ok=True)
        if self in self._alive:
            self._alive.remove(self)

    def teardown(self) -> None:
        """Do what pytest-celery's nodes do at their end."""
        self.close()


def _number(name: str | int) -> int:
    return signal.Signals[name].value if isinstance(name, str) else int(name)


def eventually(condition: Callable[[], Any], timeout_seconds: float = 60.0) -> None:
    """Wait until a condition holds; for conditions that read by themselves."""
    wait_until(condition, timeout_seconds, "what the test waits for")
