"""A wall-clock deadline for blocking sockets, independent of DSPy.

A socket's own timeout starts anew with every byte, so a reply that trickles never ends. Here every read and write waits
at most for the rest of the running call's deadline.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Self

from dspyq.core.kernel_timeouts import READ, WRITE, can_wait_in_kernel, set_kernel_timeout

#: A socket's timeout is set again if it is off by more; each time costs a system call.
TOLERANCE_SECONDS = 0.01
#: Python allocates a read's buffer before it waits: DSPy's 64 KiB would take 13 MB for two hundred threads.
_READ_BYTES = 16 * 1024
#: What the kernel takes in few steps.
_SENT_AT_ONCE_BYTES = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"

_deadline: ContextVar[deadline | None] = ContextVar("deadline", default=None)


class deadline:  # noqa: N801 - as the standard library's context managers
    """Bound all work of this context on ``DeadlineSocket``s together.

    Attributes:
        seconds: Its length.
        has_written: Whether anything was written to one of them.
        is_cut: Whether another thread has ended it before its time.
        connection: The one that was written to last.
    """

    __slots__ = ("_ends_at", "_token", "connection", "has_written", "is_cut", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.has_written = False
        self.is_cut = False
        self.connection: DeadlineSocket | None = None

    def __enter__(self) -> Self:
        """Begin."""
        self._ends_at = time.monotonic() + self.seconds
        self._token = _deadline.set(self)
        return self

    def remaining_seconds(self) -> float:
        """Return the seconds left; negative once it has passed, 0 if it was cut."""
        return 0.0 if self.is_cut else self._ends_at - time.monotonic()

    def cut(self) -> None:
        """End all work of it from another thread, also what waits for the other side."""
        self.is_cut = True
        connection = self.connection
        if connection is not None and connection.owner is self:  # another call may have it already
            connection.shut_down()

    def __exit__(self, *_: object) -> None:
        """Restore the deadline around it."""
        _deadline.reset(self._token)


def remaining_seconds() -> float:
    """Return the seconds left of the running deadline: infinite if none runs, negative once it has passed."""
    running = _deadline.get()
    return float("inf") if running is None else running.remaining_seconds()


def _note_writing(connection: DeadlineSocket) -> None:
    running = _deadline.get()
    connection.owner = running
    if running is not None:
        running.has_written = True
        running.connection = connection


class DeadlineSocket:
    """A socket whose reads and writes end with the deadline of the context that makes them.

    The head of a request is sent with its body: one packet instead of two.

    Args:
        connected: The socket; the kernel keeps its timeouts unless it speaks TLS.

    Attributes:
        owner: The deadline of the call that wrote to it last.
    """

    __slots__ = ("_armed_seconds", "_head", "_is_kept_by_kernel", "_socket", "_timeout_seconds", "owner")

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._timeout_seconds = float("inf")
        self._armed_seconds: dict[int, float] = {}
        self._head = b""
        self.owner: deadline | None = None
        self._is_kept_by_kernel = can_wait_in_kernel(connected)
        if self._is_kept_by_kernel:
            connected.settimeout(None)

    def settimeout(self, seconds: float) -> None:
        """Bound each single read and write, as on any socket."""
        self._timeout_seconds = seconds

    def recv(self, size: int) -> bytes:
        """Read what there is.

        Raises:
            TimeoutError: When the deadline has passed or the timeout of this read.
        """
        self._send_head()
        self._arm(READ, self._seconds_left())
        try:
            return self._socket.recv(min(size, _READ_BYTES))
        except BlockingIOError:
            raise _timed_out() from None

    def sendall(self, data: bytes) -> None:
        """Write everything; ``sendall``'s timeout bounds all its writes together.

        Raises:
            TimeoutError: When the deadline has passed or the timeout of this write.
        """
        if not self._head and data.endswith(_END_OF_HEAD):
            self._head = data
            return
        head, self._head = self._head, b""
        self._send(head + data)

    def fileno(self) -> int:
        """Return the file descriptor, for ``select``."""
        return self._socket.fileno()

    def shut_down(self) -> None:
        """End the connection for both sides: a thread that waits on it goes on."""
        with suppress(OSError):  # it is closed already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _seconds_left(self) -> float:
        return min(self._timeout_seconds, remaining_seconds())

    def _arm(self, direction: int, seconds: float) -> None:
        """Bound the next read or write; ``settimeout`` bounds both."""
        if seconds <= 0:
            raise TimeoutError("the deadline has passed")
        if not self._is_kept_by_kernel:
            direction = READ
        armed = self._armed_seconds.get(direction)
        if armed is not None and (armed == seconds or abs(seconds - armed) < TOLERANCE_SECONDS):
            return
        if self._is_kept_by_kernel:
            set_kernel_timeout(self._socket, seconds, direction)
        else:
            self._socket.settimeout(None if seconds == float("inf") else seconds)
        self._armed_seconds[direction] = seconds

    def _send_head(self) -> None:
        """Send a head that no body followed."""
        if self._head:
            head, self._head = self._head, b""
            self._send(head)

    def _send(self, data: bytes) -> None:
        seconds = self._seconds_left()
        self._arm(WRITE, seconds)
        _note_writing(self)
        if not self._is_kept_by_kernel:
            self._socket.sendall(data)
            return
        if len(data) > _SENT_AT_ONCE_BYTES:  # the kernel may wait for room again and again within one write
            self._socket.settimeout(None if seconds == float("inf") else seconds)
            try:
                self._socket.sendall(data)
            finally:
                self._socket.settimeout(None)
            return
        ends_at, left = time.monotonic() + seconds, memoryview(data)
        try:
            while sent := self._socket.send(left):
                if sent == len(left):
                    return
                left = left[sent:]
                self._arm(WRITE, ends_at - time.monotonic())  # the kernel's timeout is that of each write
        except BlockingIOError:
            raise _timed_out() from None


def _timed_out() -> TimeoutError:
    return TimeoutError("timed out")
