"""Questions of a producer over many spines, and what they take of it."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import psutil

from dspyq import predict

_WAIT_SECONDS = 120.0
_MEBIBYTE = 2**20


def ask(count: int, stem: str, *, at_once: bool) -> dict[str, Any]:
    """Ask so many new questions; the latter half is measured, for the first opens the connections."""
    questions = [f"{stem} {number}" for number in range(count)]
    if at_once:
        for job in predict.many([{"question": each} for each in questions]):
            job.get(timeout=_WAIT_SECONDS)
        return {}
    seconds = []
    for question in questions:
        began = time.perf_counter()
        predict.delay(question=question).get(timeout=_WAIT_SECONDS)
        seconds.append(time.perf_counter() - began)
    process = psutil.Process()
    return {
        "milliseconds": 1000 * median(seconds[count // 2 :]),
        "connections": sum(bool(each.raddr) for each in process.net_connections("tcp")),
        "megabytes": process.memory_info().rss / _MEBIBYTE,
    }
