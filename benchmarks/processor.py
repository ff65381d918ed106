"""The processor time of a prediction in a worker, beside bare threads of one program; the model answers at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from benchmarks.contenders import CELERY, DSPYQ, Contender
from benchmarks.harness import CONCURRENCY, Servers, cpu_seconds
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target

_MILLISECONDS = 1e3
_BARE = "bare DSPy threads"
_PATH, _MEASURED = "CPU per prediction", f"worker, {CONCURRENCY} threads"


def run(*, quick: bool) -> list[Row]:
    """Measure dspyq's worker, plain Celery's and bare threads in turns; each has the machine to itself in its turn."""
    count, rounds = (CONCURRENCY, 1) if quick else (1_000, 9)  # many short turns: the machine changes its pace
    with ExitStack() as started:
        blocks = {each.name: started.enter_context(_worker_block(each, count)) for each in (DSPYQ, CELERY)}
        blocks[_BARE] = started.enter_context(_bare_block(count))
        seconds = alternate(rounds, blocks)
    return [
        _row(seconds, _BARE, Target("ratio", "at most", 3.0)),
        _row(seconds, CELERY.name, None),
    ]


@contextmanager
def _worker_block(contender: Contender, count: int) -> Iterator[Callable[[], float]]:
    labels = itertools.count()

    def measure() -> float:
        before = cpu_seconds(worker.pid)
        servers.wait_for_results(servers.ask(contender, count, f"block {next(labels)}"))
        return (cpu_seconds(worker.pid) - before) / count

    with Servers() as servers, servers.worker(contender) as worker:
        yield measure


@contextmanager
def _bare_block(count: int) -> Iterator[Callable[[], float]]:
    def measure() -> float:
        return float(servers.run_bare(count)["cpu_seconds"]) / count

    with Servers() as servers:
        yield measure


def _row(seconds: dict[str, list[float]], other: str, target: Target | None) -> Row:
    ours, theirs = seconds[DSPYQ.name], seconds[other]
    return Row(
        _PATH, _MEASURED, "ms", median(ours) * _MILLISECONDS, other, median(theirs) * _MILLISECONDS,
        median_ratio(ours, theirs), target,
    )  # fmt: skip
