"""A question that has been answered before: from the process's memory (L1), and from Redis (L2)."""

from __future__ import annotations

from statistics import median

from benchmarks.contenders import DSPYQ
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.repetition import median_ratio
from benchmarks.rows import Row, Target

_QUESTION = "What is a task queue?"
_WITHOUT_MEMORY = {"DSPYQ_CACHE__MEMORY_ENTRIES": "0"}


def run_memory(*, quick: bool) -> list[Row]:
    """Measure hits in L1."""
    return [_measure("hit in L1", "memory", {}, Target("ratio", "at most", 0.50), quick=quick)]


def run_redis(*, quick: bool) -> list[Row]:
    """Measure hits in L2, with L1 off."""
    target = Target("ratio", "at most", 3.0, round_trips=1)
    return [_measure("hit in L2, L1 off", "redis", _WITHOUT_MEMORY, target, quick=quick)]


def _measure(path: str, cache_level: str, settings: dict[str, str], target: Target, *, quick: bool) -> Row:
    calls, rounds = (100, 3) if quick else (500, 40)
    with Servers() as servers:
        with servers.worker(DSPYQ):
            servers.wait_for_results(servers.run("asking:ask_one", question=_QUESTION))
        # The worker has ended: nothing but the two sides uses the machine.
        found = servers.run(
            "hits:measure", settings, question=_QUESTION, cache_level=cache_level, calls=calls, rounds=rounds
        )
    return Row(
        path, "delay().get()", "µs", median(found["hit"]) * MICROSECONDS, "redis-py GET",
        median(found["get"]) * MICROSECONDS, median_ratio(found["hit"], found["get"]), target,
        round_trips=found["round_trips"], note=f"the stored answer has {found['answer_bytes']} bytes",
    )  # fmt: skip
