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
from tests.support.redis_server import RedisServer

#: A limit of each kind, so high that it holds nothing back: guards as a deployment has them.
_LIMITS = {"DSPYQ_BUDGET__DAILY_USD": "100000", "DSPYQ_MODELS__CONTROL__REQUESTS_PER_SECOND": "100000"}
_ONE, _APART = "one Redis", "money apart"
_MILLISECONDS = 1e3
_PARTS = {
    "worker": "worker's CPU",
    "asking": "producer's CPU to ask",
    "reading": "producer's CPU to read the answer",
}


def run(*, quick: bool) -> list[Row]:
    """Measure CPU, round trips, memory and connections of new questions, with money in the same Redis and apart."""
    count, rounds, many, seconds = (40, 1, 100, 1.0) if quick else (800, 5, 5_000, 10.0)
    with RedisServer() as money, _Fleet(_LIMITS) as one, _Fleet(_LIMITS | {"DSPYQ_MONEY_URL": money.url}) as apart:
        fleets = {_ONE: one, _APART: apart}
        rows = [row for way in ("delay", "many") for row in _questions(fleets, way, count, rounds)]
        idle = [
            each.servers.run("unit_costs:idle", seconds=seconds, worker_pid=each.worker.pid) for each in (one, apart)
        ]
        alone = one.servers.run("unit_costs:alone_seconds", count=max(10, count // 4), label="alone")
        memory = one.servers.run("unit_costs:memory_bytes", count=many, label="memory")
        for each in (one, apart):
            each.answer_slowly(count)
        of_one, of_apart = one.connections(one.servers.redis.port), apart.connections(apart.servers.redis.port)
        to_money = apart.connections(money.port)
    path = f"worker of {CONCURRENCY} threads"
    idle_one, idle_apart = ({name: value * MICROSECONDS for name, value in each.items()} for each in idle)
    return [
        *rows,
        Row("a new question alone", "from delay() to its answer, model at once", "ms", alone * _MILLISECONDS),
        Row("its answer in Redis", "answer and alias, while the answer is kept", "B", memory["all"] - memory["marks"]),
        Row("its answer in Redis", "mark of the settled call, 15 minutes", "B", memory["marks"]),
        Row(path, "connections to the questions' Redis", "", of_one, _APART, of_apart),
        Row(path, "connections to the Redis of money", "", to_money),
        Row(path, "idle, a second of the questions' Redis", "µs", idle_one["redis"], _APART, idle_apart["redis"]),
        Row(path, "idle, a second of the Redis of money", "µs", idle_apart["money"]),
        Row(path, "idle, a second of its own CPU", "µs", idle_one["worker"], _APART, idle_apart["worker"]),
    ]


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

    def answer_slowly(self, count: int) -> None:
        """Answer so many questions with a model of a second, so that all threads have worked at once."""
        self.servers.endpoint.script(latency_seconds=1.0)
        self.servers.wait_for_results(self.servers.ask(DSPYQ, count, "slow"))

    def connections(self, port: int) -> int:
        """Return how many connections the worker has to a Redis."""
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

    found = alternate(rounds, {name: block(each) for name, each in fleets.items()})
    path = f"a new question, {way}()"

    def row(measured: str, ours: list[float], theirs: list[float], other: str, trips: float | None = None) -> Row:
        return Row(
            path, measured, "µs", median(ours) * MICROSECONDS, other, median(theirs) * MICROSECONDS,
            median_ratio(ours, theirs), round_trips=trips,
        )  # fmt: skip

    def each(name: str, part: str) -> list[float]:
        return [turn[part] for turn in found[name]]

    questions, money, one = each(_APART, "redis"), each(_APART, "money"), each(_ONE, "redis")
    both = [sum(pair) for pair in zip(questions, money, strict=True)]
    return [
        row("Redis's CPU", one, both, f"{_APART}, both", median(each(_ONE, "round_trips"))),
        row("CPU of the Redis of money", money, questions, "of the questions'", median(each(_APART, "round_trips"))),
        *(row(measured, each(_ONE, part), each(_APART, part), _APART) for part, measured in _PARTS.items()),
    ]
