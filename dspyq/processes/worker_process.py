"""One worker: its process, and what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: A worker ends on the end of its standard input, so that none outlives a parent that was killed.
TIED = "_DSPYQ_ENDS_WITH_STDIN"
#: The worker's name, for its log.
NAME = "_DSPYQ_WORKER"
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 30.0
#: A worker that lived for so long did not fail at its start.
_STEADY_SECONDS = 60.0


class WorkerProcess:
    """A worker that is started, ends, and may be started again. Only the parent's loop calls its methods.

    Args:
        name: Its name.
        command: Its command.
        port: The port of its own pages; None for none.
        variables: What its environment has beside the parent's.

    Attributes:
        is_ready: Whether it takes jobs.
        is_replaced: Whether it was asked to end, to be started again at once.
        starts: Number of times that it was started.
        start_at: The monotonic second it is to be started; None while it runs, or is not to run.
        ready_socket: Where it reports that it is ready.
        process: Its process, once it was started.
    """

    def __init__(self, name: str, command: Sequence[str], port: int | None, variables: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.is_ready = False
        self.is_replaced = False
        self.starts = 0
        self.start_at: float | None = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._variables = variables
        self._failures = 0
        self._started_at = 0.0
        self._tie = -1
        self.ready_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ready_socket.settimeout(0)
        self._address = _bind(self.ready_socket)

    @property
    def is_running(self) -> bool:
        """Return whether it has a process that has not ended."""
        return self.process is not None and self.process.returncode is None

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, with pipes for its output.

        Raises:
            OSError: If there is no memory, process or file left for it.
        """
        read_end, self._tie = os.pipe()
        variables = {"NOTIFY_SOCKET": self._address, "PYTHONUNBUFFERED": "1", TIED: "1", NAME: self.name}
        try:
            self.process = subprocess.Popen(  # noqa: S603 - celery of this environment, with the operator's options
                self._command,
                env={**os.environ, **self._variables, **variables},
                stdin=read_end,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,  # Ctrl-C is the parent's; of two signals the second would cut its jobs off
            )
        except OSError:
            os.close(self._tie)
            raise
        finally:
            os.close(read_end)
        self.starts += 1
        self.start_at, self._started_at = None, time.monotonic()
        self.is_ready = self.is_replaced = False
        return self.process

    def note_end(self) -> float:
        """Note that it has ended, and return the seconds until it may be started again; longer after each failure."""
        os.close(self._tie)
        self.is_ready = False
        if self.is_replaced:
            return 0.0
        if time.monotonic() - self._started_at > _STEADY_SECONDS:
            self._failures = 0
        self._failures += 1
        return min(_FIRST_WAIT_SECONDS * 2.0 ** (self._failures - 1), _LONGEST_WAIT_SECONDS)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.process is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):  # Popen's own way would take its end from the loop
                os.kill(self.process.pid, number)

    def close(self) -> None:
        """Remove its socket."""
        self.ready_socket.close()
        if not self._address.startswith("@"):
            Path(self._address).unlink(missing_ok=True)


def _bind(receiver: socket.socket) -> str:
    """Bind a socket that workers send to, and return its address as ``NOTIFY_SOCKET`` has it.

    The modules secrets and tempfile would take more memory than all of this.
    """
    name = f"dspyq-{os.getpid()}-{os.urandom(8).hex()}"
    if sys.platform == "linux":  # a name without a file: nothing is left behind
        with contextlib.suppress(OSError):
            receiver.bind(f"\0{name}")
            return f"@{name}"
    address = str(Path(os.environ.get("TMPDIR", "/tmp")) / name)  # noqa: S108 - its name cannot be guessed
    receiver.bind(address)
    return address
