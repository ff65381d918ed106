"""Free ports on the loopback address."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def free_port(preferred: int = 0) -> int:
    """Return a loopback port that nobody listens on now: the preferred one where it is free, any other where not.

    Another process can take it before the caller does; who must not fail on that tries again.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a port just closed counts as taken
        try:
            probe.bind((LOOPBACK, preferred))
        except OSError:
            if not preferred:
                raise
            return free_port()
        port: int = probe.getsockname()[1]
        return port
