"""A question that nobody has asked: until its message is in Redis, one by one and ten thousand in bulk."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.contenders import ARQ, CELERY, DRAMATIQ, DSPYQ
from benchmarks.harness import Servers
from benchmarks.repetition import median_ratio
from benchmarks.rows import Row, Target


def run_miss(*, quick: bool) -> list[Row]:
    """Measure ``predict.delay`` of new questions."""
    calls, rounds = (50, 3) if quick else (250, 20)
    target = Target("ratio", "at least", 1.0, round_trips=2)
    return list(_rows("miss", "delay(), until in Redis", _measure(None, calls, rounds), target))


def run_many(*, quick: bool) -> list[Row]:
    """Measure ``predict.many`` of new questions; the others send theirs one by one."""
    rows, calls, rounds = (500, 50, 3) if quick else (10_000, 2_000, 4)
    found = _measure(rows, calls, rounds)
    return list(_rows("many", f"many(), {rows:,} new rows", found, Target("ratio", "at least", 15.0)))


def _measure(rows: int | None, calls: int, rounds: int) -> dict[str, Any]:
    with Servers() as servers:
        found: dict[str, Any] = servers.run("publishing:measure", rows=rows, calls=calls, rounds=rounds)
    return found


def _rows(path: str, measured: str, found: dict[str, Any], target: Target) -> Iterator[Row]:
    per_second = {name: [1 / each for each in seconds] for name, seconds in found["seconds"].items()}
    ours = per_second[DSPYQ.name]
    for other in (CELERY, DRAMATIQ, ARQ):
        theirs = per_second[other.name]
        is_asked_for = other is CELERY
        yield Row(
            path, measured, "/s", median(ours), f"{other.name}, one by one" if path == "many" else other.name,
            median(theirs), median_ratio(ours, theirs), target if is_asked_for else None,
            round_trips=found["round_trips"][DSPYQ.name] if is_asked_for else None,
            note=f"plain Celery takes {found['round_trips'][CELERY.name]:.1f} round trips" if is_asked_for else "",
        )  # fmt: skip
