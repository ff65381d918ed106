"""Free ports on the loopback address, and checks of servers there."""

from __future__ import annotations

import http.client
import socket

ADDRESS = "127.0.0.1"
_ANSWER_TIMEOUT_SECONDS = 5.0


def free_port(preferred: int = 0) -> int:
    """Return a free port: the preferred one if it is free, else any other.

    Another process can take it before the caller does.
    """
    if preferred and not is_free(preferred):
        preferred = 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((ADDRESS, preferred))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Return True if a server could listen on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port just closed counts as free
        try:
            probe.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def answers_http(port: int, path: str) -> bool:
    """Return True if a server on a port answers a GET with status 200."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=_ANSWER_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
