"""Costs of a new question for each part of a fleet: the inputs of the simulation and of docs/scale.md."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from typing import Self

import psutil

from benchmarks.contenders import DSPYQ
from benchmarks.harness import CONCURRENCY, MICROSECONDS, Servers
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row
from tests.support.processes import LocalProcess

#: A limit of each kind, so high that it holds nothing back: guards as a deployment has them.
_LIMITS = {"DSPYQ_BUDGET__DAILY_USD": "100000", "DSPYQ_MODELS__CONTROL__REQUESTS_PER_SECOND": "100000"}
_WITH, _WITHOUT = "with limits", "without limits"
_MILLISECONDS = 1e3
#: What the log of commands itself costs falls on all scripts, so few turns do.
_SHARE_ROUNDS = 2
_PARTS = {
    "redis": "Redis's CPU",
    "worker": "worker's CPU",
    "asking": "producer's CPU to ask",
    "reading": "producer's CPU to read the answer",
}


def run(*, quick: bool) -> list[Row]:
    """Measure CPU, round trips, memory and connections of new questions, with limits and without, in turns."""
    count, rounds, many, seconds = (40, 1, 100, 1.0) if quick else (800, 5, 5_000, 10.0)
    with ExitStack() as started:
        fleets = {
            name: started.enter_context(_Fleet(limits)) for name, limits in {_WITH: _LIMITS, _WITHOUT: {}}.items()
        }
        idle = {name: each.servers.run("unit_costs:idle", seconds=seconds, worker_pid=each.worker.pid)
                for name, each in fleets.items()}  # fmt: skip
        rows = [row for way in ("delay", "many") for row in _questions(fleets, way, count, rounds)]
        alone = fleets[_WITH].servers.run("unit_costs:alone_seconds", count=max(10, count // 4), label="alone")
        memory = fleets[_WITH].servers.run("unit_costs:memory_bytes", count=many, label="memory")
        connections = fleets[_WITH].most_connections(count)
    path = f"worker of {CONCURRENCY} threads"
    return [
        *rows,
        Row("a new question alone", "from delay() to its answer, model at once", "ms", alone * _MILLISECONDS),
        Row("its answer in Redis", "answer and alias, while the answer is kept", "B", memory["all"] - memory["marks"]),
        Row("its answer in Redis", "mark of the settled call, 15 minutes", "B", memory["marks"]),
        Row(path, "connections to Redis, the most", "", connections),
        Row(path, "Redis's CPU in a second, idle", "µs", idle[_WITH]["redis"] * MICROSECONDS, _WITHOUT,
            idle[_WITHOUT]["redis"] * MICROSECONDS),
        Row(path, "its own CPU in a second, idle", "µs", idle[_WITH]["worker"] * MICROSECONDS, _WITHOUT,
            idle[_WITHOUT]["worker"] * MICROSECONDS),
    ]  # fmt: skip


class _Fleet:
    """A worker on servers of its own."""

    def __init__(self, limits: Mapping[str, str]) -> None:
        self.servers = Servers(limits)

    def __enter__(self) -> Self:
        with ExitStack() as started:
            started.enter_context(self.servers)
            self.worker: LocalProcess = started.enter_context(self.servers.worker(DSPYQ))
            self._started = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._started.close()

    def most_connections(self, count: int) -> int:
        """Return how many connections the worker has to Redis after so many predictions of a 1 s model."""
        self.servers.endpoint.script(latency_seconds=1.0)
        self.servers.wait_for_results(self.servers.ask(DSPYQ, count, "connections"))
        port = self.servers.redis.port
        connected = psutil.Process(self.worker.pid).net_connections(kind="tcp")
        return sum(bool(each.raddr) and each.raddr.port == port for each in connected)


def _questions(fleets: Mapping[str, _Fleet], way: str, count: int, rounds: int) -> list[Row]:
    numbers = itertools.count()

    def block(fleet: _Fleet) -> Callable[[], dict[str, float]]:
        def ask() -> dict[str, float]:
            label = f"{way}, turn {next(numbers)}"
            found: dict[str, float] = fleet.servers.run(
                "unit_costs:ask", way=way, count=count, label=label, worker_pid=fleet.worker.pid
            )
            return found

        return ask

    def share(fleet: _Fleet) -> Callable[[], float]:
        def ask() -> float:
            label = f"{way}, share {next(numbers)}"
            return float(fleet.servers.run("unit_costs:money_share", way=way, count=count, label=label))

        return ask

    found = alternate(rounds, {name: block(each) for name, each in fleets.items()})
    shares = alternate(min(rounds, _SHARE_ROUNDS), {name: share(each) for name, each in fleets.items()})
    path = f"a new question, {way}()"
    rows = []
    for part, measured in _PARTS.items():
        ours, theirs = ([each[part] for each in found[name]] for name in (_WITH, _WITHOUT))
        trips = median(each["round_trips"] for each in found[_WITH]) if part == "redis" else None
        rows.append(
            Row(
                path, measured, "µs", median(ours) * MICROSECONDS, _WITHOUT, median(theirs) * MICROSECONDS,
                median_ratio(ours, theirs), round_trips=trips,
            )
        )  # fmt: skip
    ours, theirs = (median(shares[name]) * 100 for name in (_WITH, _WITHOUT))
    return [*rows, Row(path, "scripts of money, of the time of all", "%", ours, _WITHOUT, theirs)]
