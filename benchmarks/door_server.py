"""Servers of HTTP as processes of their own, and blocks of requests that measure them."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.harness import Servers, scheduled_seconds
from tests.support.processes import LocalProcess, free_port

QUESTION = "What is a task queue?"
PATH = "/v1/programs/qa/predictions"
CONNECTIONS = 8
_HELLO = "benchmarks.subjects.hello_server"
_PYTHON = [sys.executable, "-m"]
_START_SECONDS = 120.0
_GOOD = re.compile(rb"HTTP/1\.1 20[02] ")
_LENGTH = re.compile(rb"(?i)content-length: (\d+)")


class Turn:
    """Cost and pace of a turn of a server.

    Attributes:
        cpu_seconds: Its processor time for each answer.
        per_second: Its answers in a second.
    """

    def __init__(self, cpu_seconds: float, per_second: float) -> None:
        self.cpu_seconds = cpu_seconds
        self.per_second = per_second


class Server(LocalProcess):
    """A server process on a port."""

    def __init__(self, name: str, arguments: list[str], port: int, **options: Any) -> None:
        self.port = port
        super().__init__(name, arguments, **options)
        self.ready(_START_SECONDS)


@contextmanager
def door(servers: Servers, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run ``dspyq serve``, on which callers wait for ten minutes."""
    port = free_port(2)
    own = {"DSPYQ_SERVE__METRICS_PORT": str(port + 1), "DSPYQ_SERVE__WAIT_SECONDS": "600"}
    command = [*_PYTHON, "dspyq", "serve", "--port", str(port)]
    env = servers.environment(own | dict(settings or {}))
    with Server("door", command, port, ready_line="server_ready", env=env) as server:
        yield server


@contextmanager
def hello() -> Iterator[Server]:
    """Run the same server with the smallest application there is."""
    port = free_port()
    with Server("hello", [*_PYTHON, _HELLO, str(port)], port, ready_line="hello_ready") as server:
        yield server


def question(text: str, **options: Any) -> bytes:
    """Return the body of a question."""
    return json.dumps({"inputs": {"question": text}, **options}).encode()


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """Return a request as it is sent, in one piece as load generators send it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def block(
    server: Server, make: Callable[[], bytes], calls: int, *, connections: int = CONNECTIONS
) -> Callable[[], Turn]:
    """Return a block that asks a server over some connections at once."""

    def ask(_: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for _ in range(calls // connections):
                connection.sendall(make())
                read(connection)

    def run() -> Turn:
        cpu, started = scheduled_seconds(server.pid), time.perf_counter()
        with ThreadPoolExecutor(connections) as clients:
            list(clients.map(ask, range(connections)))
        seconds = time.perf_counter() - started
        return Turn((scheduled_seconds(server.pid) - cpu) / calls, calls / seconds)

    return run


def read(connection: socket.socket) -> bytes:
    """Read a response to its end, and return its body.

    Raises:
        RuntimeError: If it is no good one.
    """
    received = connection.recv(65_536)
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    if not _GOOD.match(head):
        raise RuntimeError(received.decode())
    length = int(_LENGTH.search(head)[1])  # type: ignore[index]  # all servers send it
    while len(body) < length:
        body += connection.recv(65_536)
    return body
