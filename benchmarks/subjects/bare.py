"""Bare DSPy: the program in two hundred threads, with nothing around it."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.subjects.asking import questions

_CONCURRENCY = int(os.environ["BENCHMARK_CONCURRENCY"])


def run(count: int, warm_up_count: int) -> dict[str, Any]:
    """Answer questions.

    Returns:
        ``started_at`` and ``ended_at``, seconds since 1970, and ``cpu_seconds``, what this process took in between.
    """
    from benchmarks.subjects import program  # noqa: PLC0415 - loading DSPy belongs to this function's process

    with ThreadPoolExecutor(_CONCURRENCY) as pool:
        list(pool.map(program.answer, questions(warm_up_count, "warm-up")))
        cpu_before = time.process_time()
        started_at = time.time()
        list(pool.map(program.answer, questions(count, "question")))
        ended_at = time.time()
        cpu_seconds = time.process_time() - cpu_before
    return {"started_at": started_at, "ended_at": ended_at, "cpu_seconds": cpu_seconds}
