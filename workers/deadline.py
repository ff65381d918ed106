"""A wall clock for blocking sockets. Knows nothing of DSPy.

A socket's own timeout starts anew with every byte, so a reply that trickles never ends. Here every read and write waits
for what is left of the running call's deadline at most.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound everything this context does on ``DeadlineSocket``s together."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining_seconds() -> float:
    """Return what is left of the running deadline, infinite where none runs; negative once it has passed."""
    end = _deadline.get()
    return float("inf") if end is None else end - time.monotonic()


class DeadlineSocket:
    """A socket whose reads and writes end with the deadline of whoever makes them."""

    __slots__ = ("_socket", "_timeout_seconds")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._timeout_seconds = float("inf")

    def settimeout(self, seconds: float) -> None:
        """Bound each single read and write, as on any socket."""
        self._timeout_seconds = seconds

    def recv(self, size: int) -> bytes:
        """Read what there is.

        Raises:
            TimeoutError: When the deadline has passed or the timeout of this read.
        """
        self._arm()
        return self._socket.recv(size)

    def sendall(self, data: bytes) -> None:
        """Write everything; ``sendall``'s timeout bounds all its writes together.

        Raises:
            TimeoutError: When the deadline has passed or the timeout of this write.
        """
        self._arm()
        self._socket.sendall(data)

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
        self._socket.settimeout(None if seconds == float("inf") else seconds)
