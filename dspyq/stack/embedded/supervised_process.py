"""Child processes that end when their parent does, however the parent ends.

A killed process runs no clean-up, so another process must do it. Between parent and child runs a
small supervisor that holds one end of a socket pair; the kernel closes the other end when the parent is gone, by
``SIGKILL`` too, and the supervisor then ends the child with all of its process group. Closing that end is also the
only way a living parent ends its child: there is one path, and every run takes it. It is the same on Linux and macOS.

A process that is forked from the parent without exec keeps the parent's end open too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Self

#: Time between ``SIGTERM`` and ``SIGKILL``.
GRACE_SECONDS = 5.0
_SIGNAL_EXIT_STATUS = 128
_NOT_STARTED_EXIT_STATUS = 127


class SupervisedProcess:
    """A running child that does not outlive this process.

    It leads its own process group, so a Ctrl-C in the terminal reaches only this process, which then decides.

    Args:
        command: Program and arguments.
        environment: Its environment; this process's own where left out.
        output: Target of its standard output and error: a file, ``subprocess.PIPE`` or, left out, ours.
        grace_seconds: Time to end on ``SIGTERM`` before it and its group are killed.
        umask: Its umask; this process's own where left out.

    Attributes:
        pid: The child's own process id, not the supervisor's.
        stdout: The reading end of its output, with ``output=subprocess.PIPE``.

    Raises:
        OSError: If the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        output: int | IO[bytes] | None = None,
        grace_seconds: float = GRACE_SECONDS,
        umask: int = -1,
    ) -> None:
        self._tie, far_end = socket.socketpair()
        with far_end:
            # Isolated and without site-packages: only the standard library is needed, and it starts in half the time.
            supervisor = [sys.executable, "-I", "-S", __file__, str(far_end.fileno()), str(grace_seconds)]
            self._supervisor = subprocess.Popen(  # noqa: S603 - the caller's command is what this class is for
                [*supervisor, *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                pass_fds=[far_end.fileno()],
                start_new_session=True,
                umask=umask,
            )
        self._grace_seconds = grace_seconds
        self.stdout: IO[bytes] | None = self._supervisor.stdout
        self.pid = self._started(command[0])

    def _started(self, program: str) -> int:
        """Wait for the supervisor's one line: the child's process id, or the error number of its start."""
        with self._tie.makefile("rb") as lines:
            kind, _, number = lines.readline().partition(b" ")
        if kind == b"pid":
            return int(number)
        self._end_supervisor()
        error_number = int(number or errno.ECHILD)
        raise OSError(error_number, os.strerror(error_number), program)

    def poll(self) -> int | None:
        """Return the exit status as in a shell (128 plus the signal's number after a signal), None while it runs."""
        return self._supervisor.poll()

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for the end and return the exit status as `poll` does.

        Raises:
            subprocess.TimeoutExpired: If it still runs.
        """
        return self._supervisor.wait(timeout_seconds)

    def send_signal(self, number: signal.Signals) -> None:
        """Send the child a signal; none if it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self) -> None:
        """Begin to end the child and its process group, without waiting."""
        self._tie.close()

    def close(self) -> None:
        """End the child and its process group, and wait; do nothing if it has ended."""
        self._end_supervisor()
        if self._supervisor.returncode < 0:  # the supervisor was killed, so its work is done here
            _signal_group(self.pid, signal.SIGKILL)

    def _end_supervisor(self) -> None:
        self._tie.close()
        try:
            self._supervisor.wait(self._grace_seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # it is stopped or starved
            self._supervisor.kill()
            self._supervisor.wait()
        if self.stdout:
            self.stdout.close()

    def __enter__(self) -> Self:
        """Return the running child."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the child."""
        self.close()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only zombies are left
        os.killpg(group, number)


def _supervise(tie: socket.socket, grace_seconds: float, command: Sequence[str]) -> int:
    """Run the command until it ends or the other end of the tie closes; return its exit status."""
    try:
        child = subprocess.Popen(command, process_group=0)  # noqa: S603 - it comes from SupervisedProcess
    except OSError as error:
        tie.sendall(b"error %d\n" % (error.errno or 0))
        return _NOT_STARTED_EXIT_STATUS

    def end_with_parent() -> None:
        with contextlib.suppress(ConnectionError):  # the same as an end of input
            tie.recv(1)
        _signal_group(child.pid, signal.SIGTERM)
        try:
            child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            _signal_group(child.pid, signal.SIGKILL)

    with contextlib.suppress(ConnectionError):  # the parent is gone already; the thread will see it
        tie.sendall(b"pid %d\n" % child.pid)
    signal.signal(signal.SIGTERM, lambda *_: _signal_group(child.pid, signal.SIGTERM))
    threading.Thread(target=end_with_parent, daemon=True).start()
    status = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # processes that the child left behind
    return status if status >= 0 else _SIGNAL_EXIT_STATUS - status


if __name__ == "__main__":
    _tie_descriptor, _grace, *_command = sys.argv[1:]
    with socket.socket(fileno=int(_tie_descriptor)) as _socket:
        sys.exit(_supervise(_socket, float(_grace), _command))
