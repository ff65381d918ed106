"""An answer from memory through HTTP, beside the same server's bare hello; and hits while others wait for an answer."""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

from benchmarks.contenders import DSPYQ
from benchmarks.harness import MICROSECONDS, Servers, scheduled_seconds
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target
from tests.support.processes import LocalProcess, free_port

_QUESTION = "What is a task queue?"
_PATH = "/v1/programs/qa/predictions"
_CONNECTIONS = 8
#: Until all callers that are to wait do.
_SETTLE_SECONDS = 3.0
_HELLO = "benchmarks.subjects.hello_server"
_PYTHON = [sys.executable, "-m"]


def run(*, quick: bool) -> list[Row]:
    """Measure a hit through HTTP, and what waiting callers cost it."""
    calls, rounds, waiting = (200, 1, 20) if quick else (2_000, 9, 1_000)
    ask = _request("POST", _PATH, _body(_QUESTION))
    with Servers() as servers, ExitStack() as started:
        with servers.worker(DSPYQ):
            servers.wait_for_results(servers.run("asking:ask_one", question=_QUESTION))
        hits = _block(started.enter_context(_door(servers)), ask, calls)
        busy = started.enter_context(_door(servers))
        hits_beside = _block(busy, ask, calls)
        hello = _block(started.enter_context(_hello()), _request("GET", "/", b""), calls)
        for block in (hits, hits_beside):
            block()  # the first is from Redis
        found = alternate(rounds, {"hit": hits, "hello": hello})
        with _waiting(busy, waiting):
            pace = alternate(rounds, {"alone": hits, "beside": hits_beside})
    cpu = {name: [each.cpu_seconds for each in turns] for name, turns in found.items()}
    alone, beside = ([each.per_second for each in pace[name]] for name in ("alone", "beside"))
    return [
        Row(
            "hit through HTTP", "CPU per answer", "µs", median(cpu["hit"]) * MICROSECONDS, "the server's bare hello",
            median(cpu["hello"]) * MICROSECONDS, median_ratio(cpu["hit"], cpu["hello"]),
            Target("ratio", "at most", 3.2), note=f"{_CONNECTIONS} connections",
        ),
        Row(
            "hit through HTTP", f"answers, {waiting:,} others wait", "/s", median(beside), "none waits", median(alone),
            median_ratio(beside, alone), Target("ratio", "at least", 0.9),
        ),
    ]  # fmt: skip


class _Turn:
    """Cost and pace of a turn of a server.

    Attributes:
        cpu_seconds: Its processor time for each answer.
        per_second: Its answers in a second.
    """

    def __init__(self, cpu_seconds: float, per_second: float) -> None:
        self.cpu_seconds = cpu_seconds
        self.per_second = per_second


class _Server(LocalProcess):
    """A server process on a port."""

    def __init__(self, name: str, arguments: list[str], port: int, **options: Any) -> None:
        self.port = port
        super().__init__(name, arguments, **options)
        self.ready()


@contextmanager
def _door(servers: Servers) -> Iterator[_Server]:
    port = free_port(2)
    env = servers.environment({"DSPYQ_SERVE__METRICS_PORT": str(port + 1), "DSPYQ_SERVE__WAIT_SECONDS": "600"})
    command = [*_PYTHON, "dspyq", "serve", "--port", str(port)]
    with _Server("door", command, port, ready_line="server_ready", env=env) as server:
        yield server


@contextmanager
def _hello() -> Iterator[_Server]:
    port = free_port()
    with _Server("hello", [*_PYTHON, _HELLO, str(port)], port, ready_line="hello_ready") as server:
        yield server


def _body(question: str) -> bytes:
    return json.dumps({"inputs": {"question": question}}).encode()


def _request(method: str, path: str, body: bytes) -> bytes:
    """Return a request as it is sent, in one piece as load generators send it."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def _block(server: _Server, request: bytes, calls: int) -> Callable[[], _Turn]:
    """Return a block that asks a server over some connections at once."""

    def ask(_: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for _ in range(calls // _CONNECTIONS):
                connection.sendall(request)
                _read(connection)

    def block() -> _Turn:
        cpu, started = scheduled_seconds(server.pid), time.perf_counter()
        with ThreadPoolExecutor(_CONNECTIONS) as clients:
            list(clients.map(ask, range(_CONNECTIONS)))
        seconds = time.perf_counter() - started
        return _Turn((scheduled_seconds(server.pid) - cpu) / calls, calls / seconds)

    return block


def _read(connection: socket.socket) -> None:
    """Read a response to its end."""
    received = connection.recv(65_536)
    while b"\r\n\r\n" not in received:
        received += connection.recv(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(received.decode())
    left = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) - len(body)  # type: ignore[index]  # both servers send it
    while left > 0:
        left -= len(connection.recv(65_536))


@contextmanager
def _waiting(server: _Server, number: int) -> Iterator[None]:
    """Have callers wait for answers that do not come, as no worker runs."""
    with ExitStack() as connections:
        for each in range(number):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(_request("POST", _PATH, _body(f"{_QUESTION} {each}")))
        time.sleep(_SETTLE_SECONDS)
        yield
