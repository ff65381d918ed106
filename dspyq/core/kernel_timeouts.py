"""Timeouts of plain sockets that the kernel keeps, in place of Python, which polls before each read and write.

Each poll is a system call for which a thread releases the interpreter lock to hundreds of others.
"""

from __future__ import annotations

import socket
import struct
from typing import TypeGuard

READ, WRITE = socket.SO_RCVTIMEO, socket.SO_SNDTIMEO
#: None at all would stand for no timeout.
_LEAST_SECONDS = 0.001


def can_wait_in_kernel(sock: object) -> TypeGuard[socket.socket]:
    """Return True for a plain socket: TLS waits otherwise."""
    return type(sock) is socket.socket


def set_kernel_timeout(sock: socket.socket, seconds: float, *options: int) -> None:
    """Set the timeout of a blocking socket's reads or writes, or both; one that passes raises ``BlockingIOError``.

    Args:
        sock: The socket.
        seconds: The timeout; infinite for none.
        *options: ``READ``, ``WRITE`` or both.
    """
    whole, part = (0, 0.0) if seconds == float("inf") else divmod(max(seconds, _LEAST_SECONDS), 1)
    value = struct.pack("@ll", int(whole), int(part * 1e6))
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
