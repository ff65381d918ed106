"""``dspyq worker`` with two processes beside one: predictions a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psutil

from benchmarks.contenders import DSPYQ
from benchmarks.harness import Servers
from benchmarks.rows import Row, Target
from tests.support.processes import LocalProcess

_THREADS = 25
_START_SECONDS = 120.0
_PROCESSES = 2
#: Redis, the model and the producer share two cores with the workers: with a model that answers at once, they would be
#: the limit, and not the workers.
_MODEL_SECONDS = 0.25
_COUNT, _QUICK_COUNT = 2000, 100
_TURNS, _QUICK_TURNS = 3, 1


def run(*, quick: bool) -> list[Row]:
    """Let one process and two answer the same number of questions that wait, in turns, and compare their medians."""
    turns, count = (_QUICK_TURNS, _QUICK_COUNT) if quick else (_TURNS, _COUNT)
    speeds = [(_answer(_PROCESSES, count), _answer(1, count)) for _ in range(turns)]
    two, one = (median(each) for each in zip(*speeds, strict=True))
    path = f"dspyq worker, {_THREADS} threads a process, a {_MODEL_SECONDS:g} s model"
    ratio = median(ours / theirs for ours, theirs in speeds)
    return [Row(path, f"{_PROCESSES} processes", "/s", two, "one", one, ratio, Target("ratio", "at least", 1.9))]


def _answer(processes: int, count: int) -> float:
    """Return how many questions were answered a second; all of them waited when the workers went on."""
    with Servers() as servers, _workers(servers, processes) as parent:
        servers.endpoint.script(latency_seconds=_MODEL_SECONDS)
        servers.wait_for_results(servers.ask(DSPYQ, processes * _THREADS, "warm-up"))
        workers = psutil.Process(parent.pid).children()
        for worker in workers:
            worker.suspend()
        keys = servers.ask(DSPYQ, count, "question")
        began_at = time.monotonic()
        for worker in workers:
            worker.resume()
        servers.wait_for_results(keys)
        return count / (time.monotonic() - began_at)


@contextmanager
def _workers(servers: Servers, processes: int) -> Iterator[LocalProcess]:
    command = [sys.executable, "-m", "dspyq", "worker", f"--processes={processes}", f"--threads={_THREADS}"]
    env = servers.environment()
    with LocalProcess("workers", command, ready_line='"workers_ready"', env=env) as parent:
        parent.ready(_START_SECONDS)
        yield parent
