"""Rows by the ten thousand, looked up and asked as a batch does it, beside plain Celery's ``delay()`` one by one."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.contenders import CELERY
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.repetition import median_ratio
from benchmarks.rows import Row, Target


def run(*, quick: bool) -> list[Row]:
    """Measure ``Bulk.ask`` of new rows and ``Bulk.look`` of cached ones, inputs checked and hashed."""
    rows, calls, rounds = (500, 50, 3) if quick else (10_000, 2_000, 4)
    with Servers() as servers:
        found = servers.run("bulk:measure", rows=rows, calls=calls, rounds=rounds)
    cached_note = f"a stored answer has {found['answer_bytes']} bytes"
    return [
        _row(found, "new", f"ask(), {rows:,} new rows", Target("ratio", "at least", 3.0)),
        _row(found, "cached", f"look(), {rows:,} cached rows", Target("ratio", "at least", 20.0), cached_note),
    ]


def _row(found: dict[str, Any], name: str, measured: str, target: Target, note: str = "") -> Row:
    ours, theirs = ([1 / seconds for seconds in found[side]] for side in (name, CELERY.name))
    cpu_note = f"a {name} row takes {found['cpu_seconds'][name] * MICROSECONDS:.0f} µs of processor, Redis's included"
    return Row(
        "bulk", measured, "/s", median(ours), f"{CELERY.name}, one by one", median(theirs), median_ratio(ours, theirs),
        target, note="; ".join(filter(None, (cpu_note, note))),
    )  # fmt: skip
