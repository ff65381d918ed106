"""One worker, two hundred predictions at once, a model that takes a second: how near to the ideal of 200 a second."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders import ARQ, CELERY, DRAMATIQ, DSPYQ, Contender
from benchmarks.harness import CONCURRENCY, Servers
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row, Target

MODEL_SECONDS = 1.0
IDEAL_PER_SECOND = CONCURRENCY / MODEL_SECONDS

_PATH = "200 at once, a 1 s model"
_MEASURED = "first call to last answer"


@dataclass(frozen=True)
class _Run:
    """The outcome of a run.

    Attributes:
        per_second: Predictions a second from the first model call to the last answer in Redis.
        per_second_with_ramp: The same from when the worker, or the threads, could begin.
        max_in_flight: The most requests that the model had at once.
    """

    per_second: float
    per_second_with_ramp: float
    max_in_flight: int


def run(*, quick: bool) -> list[Row]:
    """Measure dspyq and plain Celery in turns, then the others."""
    count = 2 * CONCURRENCY if quick else 10 * CONCURRENCY
    rounds = 1 if quick else 3
    blocks = {each.name: functools.partial(_run_worker, each, count) for each in (DSPYQ, CELERY)}
    runs = alternate(rounds, blocks)
    others = {each.name: [_run_worker(each, count)] for each in (DRAMATIQ, ARQ)}
    others["bare DSPy threads"] = [_run_bare(count)]
    return list(_rows(runs[DSPYQ.name], runs[CELERY.name], others))


def _rows(ours: list[_Run], celery: list[_Run], others: dict[str, list[_Run]]) -> Iterator[Row]:
    speeds, celery_speeds = [run.per_second for run in ours], [run.per_second for run in celery]
    speed = median(speeds)
    yield Row(
        _PATH, _MEASURED, "/s", speed, "the ideal", IDEAL_PER_SECOND, speed / IDEAL_PER_SECOND,
        Target("ratio", "at least", 0.80),
        note=f"the model had {max(run.max_in_flight for run in ours)} requests at once",
    )  # fmt: skip
    ratio = median_ratio(speeds, celery_speeds)
    yield Row(
        _PATH, _MEASURED, "/s", speed, CELERY.name, median(celery_speeds), ratio, Target("ratio", "at least", 0.95)
    )
    for name, runs in others.items():
        theirs = median(run.per_second for run in runs)
        yield Row(_PATH, _MEASURED, "/s", speed, name, theirs, speed / theirs)
    with_ramp = [run.per_second_with_ramp for run in ours]
    celery_with_ramp = [run.per_second_with_ramp for run in celery]
    ratio = median_ratio(with_ramp, celery_with_ramp)
    yield Row(
        _PATH, "from start to last answer", "/s", median(with_ramp), CELERY.name,
        median(celery_with_ramp), ratio,
    )  # fmt: skip


def _run_worker(contender: Contender, count: int) -> _Run:
    """Let the worker find all questions waiting: publishing them is measured elsewhere."""
    with Servers() as servers, servers.worker(contender) as worker:
        worker.stop()
        keys = servers.ask(contender, count, "question")
        servers.endpoint.script(latency_seconds=MODEL_SECONDS)
        began_at = time.time()
        worker.cont()
        servers.wait_for_results(keys)
        return _outcome(servers, count, began_at, time.time())


def _run_bare(count: int) -> _Run:
    with Servers() as servers:
        ended = servers.run_bare(count, model_seconds=MODEL_SECONDS)
        return _outcome(servers, count, ended["started_at"], ended["ended_at"])


def _outcome(servers: Servers, count: int, began_at: float, ended_at: float) -> _Run:
    received_at = [request.received_at_seconds for request in servers.endpoint.requests()]
    first_call_at = min(moment for moment in received_at if moment >= began_at)  # not one of the warm-up
    return _Run(
        per_second=count / (ended_at - first_call_at),
        per_second_with_ramp=count / (ended_at - began_at),
        max_in_flight=servers.endpoint.counts().max_in_flight,
    )
