"""Growth of costs: with the jobs that wait, with the programs of a deployment, and with the processes that listen."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import redis

from benchmarks.harness import MICROSECONDS, Servers, scheduled_seconds
from benchmarks.program_fleet import Fleet, start_fleet
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target
from benchmarks.turns import FOUND, GO, TURN
from tests.support.producer_process import Producer

_WAITING = (100, 1_000, 10_000, 100_000, 1_000_000)
_PROGRAMS = (1, 10, 50, 200)
_LISTENERS = (1, 10, 100, 1_000, 10_000)
_QUICK_WAITING, _QUICK_PROGRAMS, _QUICK_LISTENERS = (100, 1_000), (1, 3), (1, 10)
_VARIANTS = 2
#: For a million jobs, on a machine with other work.
_FILL_SECONDS = 300.0
#: After the last scrape, until its connection is closed.
_SETTLE_SECONDS = 0.01
#: After the last prediction, until what follows it is done.
_REST_SECONDS = 3.0


class _Expected(NamedTuple):
    """Growth that a cost may have.

    Attributes:
        name: As the table says it.
        power: Of the ratio of the sizes; 0 for a constant.
        is_logarithm: Whether the ratio of the logarithms is taken.
    """

    name: str
    power: float = 0.0
    is_logarithm: bool = False

    def most(self, smallest: int, largest: int) -> float:
        """Return the most that the ratio of the costs may be."""
        if self.power:
            return largest / smallest
        return math.log(largest) / math.log(smallest) if self.is_logarithm else _NOISE


#: Caches of the processor, and turns of the machine's pace: what a constant may seem to grow by.
_NOISE = 1.5
_CONSTANT = _Expected("constant")
_LOGARITHM = _Expected("O(log n)", is_logarithm=True)
_LINEAR = _Expected("O(n)", power=1.0)


def run(*, quick: bool) -> list[Row]:
    """Measure up to a million waiting jobs, 200 programs and 10,000 listeners: the largest beside the smallest."""
    return [*_waiting_jobs(quick=quick), *_programs(quick=quick), *_listeners(quick=quick)]


def _waiting_jobs(*, quick: bool) -> Iterator[Row]:
    sizes, rounds, calls = (_QUICK_WAITING, 2, 20) if quick else (_WAITING, 15, 30)
    with ExitStack() as started:
        queues = {str(size): started.enter_context(_queue(size, calls)) for size in sizes}
        for each in queues.values():
            each.find()
        found = alternate(rounds, {size: each.measure for size, each in queues.items()})
        memory = [each.end() for each in queues.values()]
    path, expected = "waiting jobs", {"sweep": _CONSTANT}
    for name in found[str(sizes[0])][0]:
        turns = [[each[name] for each in found[str(size)]] for size in sizes]
        yield _row(path, name, sizes, turns, expected.get(name, _LOGARITHM))
    points = tuple((size, each["job_bytes"]) for size, each in zip(sizes, memory, strict=True))
    measured = f"memory of a job, message of {memory[-1]['message_bytes']:,} B"
    yield Row(_path(path, sizes), measured, "B", points[-1][1], points=points)


@dataclass(frozen=True)
class _Queue:
    """A server in which so many jobs wait, and the process that measures it."""

    redis: redis.Redis
    subject: Producer

    def measure(self) -> dict[str, float]:
        """Let it measure a round; return the seconds of each operation."""
        self.redis.rpush(TURN, GO)
        return self.find()

    def find(self) -> dict[str, float]:
        """Wait for what it has found.

        Raises:
            TimeoutError: If it finds nothing.
        """
        end = time.monotonic() + _FILL_SECONDS
        while (found := self.redis.blpop([FOUND], timeout=1)) is None:
            if not self.subject.process.is_running or time.monotonic() > end:
                raise TimeoutError(f"nothing was measured\n{self.subject.process.logs()}")
        seconds: dict[str, float] = json.loads(found[1])
        return seconds

    def end(self) -> dict[str, Any]:
        """End it; return what it returned."""
        self.redis.rpush(TURN, "end")
        found: dict[str, Any] = self.subject.result()
        return found


@contextmanager
def _queue(size: int, calls: int) -> Iterator[_Queue]:
    with Servers() as servers, servers.redis.client() as client:
        subject = servers.start("waiting_jobs:measure", size=size, calls=calls, redis_pid=servers.redis.process.pid)
        try:
            yield _Queue(client, subject)
        finally:
            subject.close()


def _programs(*, quick: bool) -> Iterator[Row]:
    sizes = _QUICK_PROGRAMS if quick else _PROGRAMS
    idle_seconds, rounds, calls, scrapes = (1.0, 1, 20, 3) if quick else (20.0, 5, 100, 5)
    rest_seconds = 0.5 if quick else _REST_SECONDS
    with ExitStack() as started:
        fleets = {size: started.enter_context(start_fleet(size, variants=_VARIANTS)) for size in sizes}
        for each in fleets.values():
            each.ask(20)
        time.sleep(rest_seconds)
        idle = _idle_seconds(list(fleets.values()), idle_seconds)
        asked = alternate(rounds, {str(size): _Asking(each, calls) for size, each in fleets.items()})
        time.sleep(rest_seconds)
        scraping = {str(size): partial(_scrape_seconds, each, scrapes) for size, each in fleets.items()}
        scraped_one = alternate(rounds, scraping)
        for size, each in fleets.items():
            names = ["control", *(f"variant{number}" for number in range(1, _VARIANTS))]
            code = "from benchmarks.subjects.one_program import ask_each\nask_each(programs, variants, label)"
            each.run(code, programs=size, variants=names, label=f"{time.monotonic_ns()}")
        time.sleep(rest_seconds)
        scraped_all = alternate(rounds, scraping)
    path = "programs"
    yield _row(path, "question", sizes, list(asked.values()), _CONSTANT)
    yield _row(path, "idle worker, a second", sizes, [[each] for each in idle], _CONSTANT)
    yield _row(path, "scrape, one asked", sizes, list(scraped_one.values()), _CONSTANT)
    yield _row(path, "scrape, all asked", sizes, list(scraped_all.values()), _LINEAR)


def _listeners(*, quick: bool) -> Iterator[Row]:
    sizes, rounds, calls = (_QUICK_LISTENERS, 2, 5) if quick else (_LISTENERS, 7, 20)
    with Servers() as servers:
        server = servers.redis
        found = servers.run(
            "listeners:measure",
            sizes=sizes, rounds=rounds, calls=calls, redis_port=server.port, redis_pid=server.process.pid,
        )  # fmt: skip
    reached, seconds, note = found["sizes"], found["seconds"], found["refusal"]
    path = "listeners"
    yield _row(path, "answer", reached, [[each] for each in seconds["answer"]], _CONSTANT, note)
    yield _row(path, "invalidation", reached, [[each] for each in seconds["invalidation"]], _LINEAR, note)
    yield _row(path, "listening, a second", reached, [[each] for each in seconds["listening"]], _LINEAR, note)


class _Asking:
    """A block of questions by a producer, beside others in turns."""

    def __init__(self, fleet: Fleet, calls: int) -> None:
        self._fleet, self._calls = fleet, calls

    def __call__(self) -> float:
        """Return the processor time of a question."""
        code = "from benchmarks.subjects.one_program import producer_seconds\nreturn producer_seconds(calls, label)"
        return float(self._fleet.run(code, calls=self._calls, label=f"{time.monotonic_ns()}"))


def _idle_seconds(fleets: Sequence[Fleet], seconds: float) -> list[float]:
    """Return the processor time of these workers, all at the same time, in a second without questions."""
    began = [scheduled_seconds(each.worker.pid) for each in fleets]
    time.sleep(seconds)
    ended = [scheduled_seconds(each.worker.pid) for each in fleets]
    return [(end - begin) / seconds for begin, end in zip(began, ended, strict=True)]


def _scrape_seconds(fleet: Fleet, scrapes: int) -> float:
    """Return the processor time of a scrape, of the worker and of Redis."""
    pids = (fleet.worker.pid, fleet.redis.process.pid)
    began = sum(map(scheduled_seconds, pids))
    for _ in range(scrapes):
        fleet.scrape()
    time.sleep(_SETTLE_SECONDS)
    return (sum(map(scheduled_seconds, pids)) - began) / scrapes


def _path(what: str, sizes: Sequence[int]) -> str:
    return f"{what}, {sizes[0]:,} to {sizes[-1]:,}"


def _row(  # noqa: PLR0913, PLR0917 - a series
    path: str,
    name: str,
    sizes: Sequence[int],
    turns: Sequence[Sequence[float]],
    expected: _Expected,
    note: str = "",
) -> Row:
    """Return the row of a cost, of which there are the seconds of each turn at each size."""
    values = [median(each) * MICROSECONDS for each in turns]
    target = Target("ratio", "at most", expected.most(sizes[0], sizes[-1]))
    return Row(
        _path(path, sizes), name, "µs", values[-1], f"at {sizes[0]:,}; {expected.name}", values[0],
        median_ratio(turns[-1], turns[0]), target, note=note, points=tuple(zip(sizes, values, strict=True)),
    )  # fmt: skip
