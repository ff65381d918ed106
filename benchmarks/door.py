"""Answers through HTTP: from memory beside the same server's bare hello, while others wait, and new questions."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks.contenders import DSPYQ
from benchmarks.door_server import CONNECTIONS, PATH, QUESTION, Server, Turn, block, door, hello, question, request
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target

_HIT = request("POST", PATH, question(QUESTION))
_HELLO = request("GET", "/")
#: Until all callers that are to wait do.
_SETTLE_SECONDS = 3.0
#: Callers of new questions at once, whose round trips are shared.
_ASKERS = 100


def run(*, quick: bool) -> list[Row]:
    """Measure a hit through HTTP, what waiting callers cost it, and new questions beside ``delay``."""
    calls, rounds, waiting, misses = (200, 1, 20, 100) if quick else (2_000, 9, 1_000, 1_000)
    with Servers() as servers, ExitStack() as started:
        with servers.worker(DSPYQ):
            servers.wait_for_results(servers.run("asking:ask_one", question=QUESTION))
        quiet, busy = (started.enter_context(door(servers)) for _ in range(2))
        hits, hits_beside = (block(server, lambda: _HIT, calls) for server in (quiet, busy))
        bare = block(started.enter_context(hello()), lambda: _HELLO, calls)
        for each in (hits, hits_beside):
            each()  # the first is from Redis
        found = alternate(rounds, {"hit": hits, "hello": bare})
        with _waiting(busy, waiting):
            pace = alternate(rounds, {"alone": hits, "beside": hits_beside})
        new = alternate(min(rounds, 3), {"door": _misses(quiet, misses), "delay": _delays(servers, misses)})
    cpu = {name: [each.cpu_seconds for each in turns] for name, turns in found.items()}
    alone, beside = ([each.per_second for each in pace[name]] for name in ("alone", "beside"))
    ours, theirs = ([each.cpu_seconds for each in new[name]] for name in ("door", "delay"))
    sent, delayed = ([each.per_second for each in new[name]] for name in ("door", "delay"))
    return [
        Row(
            "hit through HTTP", "CPU per answer", "µs", median(cpu["hit"]) * MICROSECONDS, "the server's bare hello",
            median(cpu["hello"]) * MICROSECONDS, median_ratio(cpu["hit"], cpu["hello"]),
            Target("ratio", "at most", 3.2), note=f"{CONNECTIONS} connections",
        ),
        Row(
            "hit through HTTP", f"answers, {waiting:,} others wait", "/s", median(beside), "none waits", median(alone),
            median_ratio(beside, alone), Target("ratio", "at least", 0.9),
        ),
        Row(
            "miss through HTTP", "CPU until in Redis", "µs", median(ours) * MICROSECONDS, "delay(), one by one",
            median(theirs) * MICROSECONDS, median_ratio(ours, theirs), note=f"{_ASKERS} connections",
        ),
        Row(
            "miss through HTTP", f"{misses:,} until in Redis", "/s", median(sent), "delay(), one by one",
            median(delayed), median_ratio(sent, delayed), Target("ratio", "at least", 2.0),
        ),
    ]  # fmt: skip


def _misses(server: Server, calls: int) -> Callable[[], Turn]:
    numbers = itertools.count()

    def ask() -> bytes:
        body = question(f"What is new question {next(numbers)}?")
        return request("POST", PATH, body, headers="Prefer: respond-async\r\n")

    return block(server, ask, calls, connections=_ASKERS)


def _delays(servers: Servers, calls: int) -> Callable[[], Turn]:
    """Return a block that sends as many questions by ``predict.delay``, in a process that has sent one before."""

    def run_delays() -> Turn:
        found = servers.run("publishing:seconds_of_delay", calls=calls)
        return Turn(found["cpu"], 1 / found["seconds"])

    return run_delays


@contextmanager
def _waiting(server: Server, number: int) -> Iterator[None]:
    """Have callers wait for answers that do not come, as no worker runs."""
    with ExitStack() as connections:
        for each in range(number):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            connection.sendall(request("POST", PATH, question(f"{QUESTION} {each}")))
        time.sleep(_SETTLE_SECONDS)
        yield
