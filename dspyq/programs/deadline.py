"""A wall clock for blocking sockets. Knows nothing of DSPy.

A socket's own timeout starts anew with every byte, so a reply that trickles never ends. Here every read and write waits
for what is left of the running call's deadline at most.
"""

from __future__ import annotations

import socket
import time
from contextvars import ContextVar

#: A socket is armed anew where its timeout is wrong by more; each time is a system call.
TOLERANCE_SECONDS = 0.01
#: Python sets aside what a read may bring before it waits for it: at DSPy's 64 KiB, 13 MB for two hundred threads.
_READ_BYTES = 16 * 1024
_END_OF_HEAD = b"\r\n\r\n"

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class deadline:  # noqa: N801 - as the standard library's context managers
    """Bound everything this context does on ``DeadlineSocket``s together."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        """Begin."""
        self._token = _deadline.set(time.monotonic() + self._seconds)

    def __exit__(self, *_: object) -> None:
        """Let the one around it count again."""
        _deadline.reset(self._token)


def remaining_seconds() -> float:
    """Return what is left of the running deadline, infinite where none runs; negative once it has passed."""
    end = _deadline.get()
    return float("inf") if end is None else end - time.monotonic()


class DeadlineSocket:
    """A socket whose reads and writes end with the deadline of whoever makes them.

    The head of a request is sent with its body: one packet instead of two.
    """

    __slots__ = ("_armed_seconds", "_head", "_socket", "_timeout_seconds")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._timeout_seconds = float("inf")
        self._armed_seconds: float | None = None
        self._head = b""

    def settimeout(self, seconds: float) -> None:
        """Bound each single read and write, as on any socket."""
        self._timeout_seconds = seconds

    def recv(self, size: int) -> bytes:
        """Read what there is.

        Raises:
            TimeoutError: When the deadline has passed or the timeout of this read.
        """
        self._arm()
        self._send_head()
        return self._socket.recv(min(size, _READ_BYTES))

    def sendall(self, data: bytes) -> None:
        """Write everything; ``sendall``'s timeout bounds all its writes together.

        Raises:
            TimeoutError: When the deadline has passed or the timeout of this write.
        """
        if not self._head and data.endswith(_END_OF_HEAD):
            self._head = data
            return
        self._arm()
        head, self._head = self._head, b""
        self._socket.sendall(head + data)

    def fileno(self) -> int:
        """Return the file descriptor, for ``select``."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _arm(self) -> None:
        seconds = min(self._timeout_seconds, remaining_seconds())
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        armed = self._armed_seconds
        if armed is None or not -TOLERANCE_SECONDS < seconds - armed < TOLERANCE_SECONDS:
            self._socket.settimeout(None if seconds == float("inf") else seconds)
            self._armed_seconds = seconds

    def _send_head(self) -> None:
        """Send a head that no body followed."""
        if self._head:
            head, self._head = self._head, b""
            self._socket.sendall(head)
