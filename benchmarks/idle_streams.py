"""The memory of a server for each client that listens to a prediction whose text does not come."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack

from benchmarks.door_server import PATH, QUESTION, Server, door, question, request
from benchmarks.harness import Servers, resident_mebibytes
from benchmarks.rows import Row, Target
from tests.support.processes import wait_until

_KIBIBYTES = 1024
_LIMIT_KIBIBYTES = 20.0
_OPEN_SECONDS = 120.0
#: Until the server has done what it does for a new stream.
_SETTLE_SECONDS = 3.0
#: Files of this process besides connections.
_OTHER_FILES = 100


def run(*, quick: bool) -> list[Row]:
    """Open event streams of a question that no worker answers, and look at the server's memory before and after."""
    streams = 200 if quick else 5_000
    _allow_files(streams + _OTHER_FILES)
    # No sign of life is sent while memory is looked at: its buffers would be counted in some streams alone.
    settings = {"DSPYQ_SERVE__MOST_WAITING": str(streams + 1), "DSPYQ_SERVE__HEARTBEAT_SECONDS": "300"}
    with Servers() as servers, door(servers, settings) as server, ExitStack() as opened:
        _open(server, opened)  # the first loads modules
        before = resident_mebibytes(server.pid)
        listeners = [_open(server, opened) for _ in range(streams)]
        wait_until(lambda: all(map(_has_begun, listeners)), _OPEN_SECONDS, "all streams")
        time.sleep(_SETTLE_SECONDS)
        after = resident_mebibytes(server.pid)
    each = (after - before) * _KIBIBYTES / streams
    return [
        Row(
            "event streams, idle", f"server's memory for each of {streams:,}", "KiB", each,
            target=Target("value", "at most", _LIMIT_KIBIBYTES), note=f"{before:.0f} to {after:.0f} MB",
        )
    ]  # fmt: skip


def _open(server: Server, opened: ExitStack) -> socket.socket:
    connection = opened.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    connection.sendall(request("POST", PATH, question(QUESTION, stream=True)))
    return connection


def _has_begun(connection: socket.socket) -> bool:
    """Return True if a stream's first event has come."""
    connection.settimeout(_OPEN_SECONDS)
    return b"event: status" in connection.recv(65_536, socket.MSG_PEEK)


def _allow_files(number: int) -> None:
    """Let this process and those it starts open so many files.

    Raises:
        ValueError: If the system does not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
