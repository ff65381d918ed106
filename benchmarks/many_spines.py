"""Costs of spines: one worker that serves 64 of a cluster, beside one that serves 3 of another cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.contenders import DSPYQ
from benchmarks.harness import resident_mebibytes, scheduled_seconds
from benchmarks.rows import Row
from tests.support.cluster import RedisCluster
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess
from tests.support.producer_process import Producer

_FEW, _MANY, _MANY_QUICKLY = 3, 64, 8
_CONCURRENCY = 50
_LONGEST_SECONDS = 300.0
#: After the last prediction, until what follows it is done.
_REST_SECONDS = 5.0


@dataclass(frozen=True)
class _Fleet:
    worker: LocalProcess
    cluster: RedisCluster
    endpoint: Endpoint
    env: dict[str, str]

    def ask(self, count: int, *, at_once: bool = False) -> dict[str, Any]:
        """Have a process ask so many new questions, and return what ``subjects.spines`` measured."""
        code = f"from benchmarks.subjects.spines import ask\nreturn ask(count, stem, at_once={at_once})"
        producer = Producer(code, {"count": count, "stem": f"{time.monotonic_ns()}"}, self.env)
        try:
            if at_once:
                self.endpoint.wait_for_calls(count, _LONGEST_SECONDS)
                self.endpoint.release()
            found: dict[str, Any] = producer.result(_LONGEST_SECONDS)
        finally:
            producer.close()
        return found

    @property
    def connections(self) -> float:
        """The worker's connections to the masters."""
        ports = {node.port for node in self.cluster.nodes}
        found = psutil.Process(self.worker.pid).net_connections("tcp")
        return float(sum(bool(each.raddr) and each.raddr.port in ports for each in found))

    @property
    def seconds(self) -> tuple[float, float]:
        """The processor time up to now of the worker, and of all masters."""
        return scheduled_seconds(self.worker.pid), sum(
            scheduled_seconds(node.process.pid) for node in self.cluster.nodes
        )


def run(*, quick: bool) -> list[Row]:
    """Measure both beside each other: after their start, idle, with all threads at work, and one question at a time."""
    idle_seconds, turns, calls = (2.0, 1, 20) if quick else (60.0, 7, 200)
    many = _MANY_QUICKLY if quick else _MANY
    path = f"{many} spines beside {_FEW}"

    def row(measured: str, unit: str, values: Sequence[float], ratio: float | None = None) -> Row:
        ours, theirs = values
        return Row(path, measured, unit, ours, f"{_FEW} spines", theirs, ours / theirs if ratio is None else ratio)

    with _fleet(many) as ours, _fleet(_FEW) as theirs:
        fleets = (ours, theirs)
        each = _of_each(fleets)
        time.sleep(_REST_SECONDS)
        rows = [
            row("connections of a worker that was just started", "", each(lambda fleet: fleet.connections)),
            row("memory of that worker", "MB", each(lambda fleet: resident_mebibytes(fleet.worker.pid))),
        ]
        for fleet in fleets:
            fleet.endpoint.hold()
            fleet.ask(_CONCURRENCY, at_once=True)
            fleet.ask(8 * many)
        rows += [
            row(f"its connections after {_CONCURRENCY} at once", "", each(lambda fleet: fleet.connections)),
            row("its memory then", "MB", each(lambda fleet: resident_mebibytes(fleet.worker.pid))),
        ]
        idle = _idle_percent(fleets, idle_seconds)
        rows += [
            row("an idle worker", "% of a core", [worker for worker, _ in idle]),
            row("three masters beside it", "% of a core", [masters for _, masters in idle]),
        ]
        asked = [each(lambda fleet: fleet.ask(calls)) for _ in range(turns)]
    for name, measured, unit in (
        ("milliseconds", "a question, one at a time", "ms"),
        ("connections", "connections of its producer", ""),
        ("megabytes", "memory of its producer", "MB"),
    ):
        turned = [[outcome[name] for outcome in turn] for turn in asked]
        medians = [median(values) for values in zip(*turned, strict=True)]
        rows.append(row(measured, unit, medians, median(one / other for one, other in turned)))
    return rows


def _of_each(fleets: Sequence[_Fleet]) -> Callable[[Callable[[_Fleet], Any]], list[Any]]:
    return lambda measure: [measure(fleet) for fleet in fleets]


def _idle_percent(fleets: Sequence[_Fleet], seconds: float) -> list[tuple[float, ...]]:
    """Return what each worker and its masters take of a core while nothing is asked, at the same time."""
    time.sleep(_REST_SECONDS)
    began = [fleet.seconds for fleet in fleets]
    time.sleep(seconds)
    ended = [fleet.seconds for fleet in fleets]
    return [
        tuple(100 * (end - begin) / seconds for begin, end in zip(*pair, strict=True))
        for pair in zip(began, ended, strict=True)
    ]


@contextmanager
def _fleet(spines: int) -> Iterator[_Fleet]:
    with ExitStack() as started:
        folder = Path(started.enter_context(TemporaryDirectory(prefix="benchmark-")))
        cluster = started.enter_context(RedisCluster(has_replicas=False))
        endpoint = started.enter_context(Endpoint())
        changes = {"delivery": None, "workers": {"concurrency": _CONCURRENCY}}
        path = write_settings(folder / "dspyq.toml", merged(default_document(endpoint.url), changes))
        env = environment(path, cluster.url_of(spines), {"LITELLM_LOCAL_MODEL_COST_MAP": "true"})
        worker = started.enter_context(
            LocalProcess("worker", list(DSPYQ.worker_command), ready_line=" ready.", env=env)
        )
        worker.ready(_LONGEST_SECONDS)
        yield _Fleet(worker, cluster, endpoint, env)
