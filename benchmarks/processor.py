"""The processor time of a prediction in a worker, beside bare threads of one program; the model answers at once."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from statistics import median

from benchmarks.contenders import CELERY, DSPYQ, Contender
from benchmarks.harness import CONCURRENCY, Servers, cpu_seconds
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target
from tests.support.processes import LocalProcess

_MILLISECONDS = 1e3
_BARE = "bare DSPy threads"
_PATH, _MEASURED = "CPU per prediction", f"worker process, {CONCURRENCY} threads"


def run(*, quick: bool) -> list[Row]:
    """Measure dspyq's worker, plain Celery's and bare threads in turns; each has the machine to itself in its turn."""
    count, rounds = (CONCURRENCY, 1) if quick else (2_000, 4)
    labels = itertools.count()

    def worker_block(contender: Contender, worker: LocalProcess) -> float:
        cpu_before = cpu_seconds(worker.pid)
        servers.wait_for_results(servers.ask(contender, count, f"block {next(labels)}"))
        return (cpu_seconds(worker.pid) - cpu_before) / count

    def bare_block() -> float:
        outcome = servers.run("bare:run", count=count, warm_up_count=CONCURRENCY, label=f"block {next(labels)}")
        return float(outcome["cpu_seconds"]) / count

    with Servers() as servers, ExitStack() as workers:
        running = {each: workers.enter_context(servers.worker(each)) for each in (DSPYQ, CELERY)}
        seconds = alternate(
            rounds,
            {
                DSPYQ.name: lambda: worker_block(DSPYQ, running[DSPYQ]),
                _BARE: bare_block,
                CELERY.name: lambda: worker_block(CELERY, running[CELERY]),
            },
        )
    return [
        _row(seconds, _BARE, Target("ratio", "at most", 3.0)),
        _row(seconds, CELERY.name, None),
    ]


def _row(seconds: dict[str, list[float]], other: str, target: Target | None) -> Row:
    ours, theirs = seconds[DSPYQ.name], seconds[other]
    return Row(
        _PATH, _MEASURED, "ms", median(ours) * _MILLISECONDS, other, median(theirs) * _MILLISECONDS,
        median_ratio(ours, theirs), target,
    )  # fmt: skip
