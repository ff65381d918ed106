"""Asks a question that has been answered, beside reading as many bytes with redis-py, in one thread."""

from __future__ import annotations

import functools
import os
import time
from typing import Any

import redis

from benchmarks.repetition import alternate, round_trips_per_call, seconds_per_call
from dspyq import predict
from dspyq.cache.memory import process_cache

_KEY = "benchmark:answer"
_HEARING_SECONDS = 0.5


def measure(question: str, cache_level: str, calls: int, rounds: int) -> dict[str, Any]:
    """Measure hits.

    Args:
        question: A question that has been answered.
        cache_level: Where the answers must come from, ``memory`` or ``redis``: the settings decide.
        calls: The calls of a block.
        rounds: The blocks of each side.

    Returns:
        The seconds of a call in each round as ``hit`` and ``get``, ``round_trips`` of a hit, and ``answer_bytes``.
    """
    url = os.environ["DSPYQ_REDIS_URL"]
    client = redis.Redis.from_url(url)
    process_cache()
    time.sleep(_HEARING_SECONDS)  # a memory cache is used once it hears invalidations
    task_id = predict.delay(question=question).id
    stored = client.get(f"celery-task-meta-{task_id}")
    client.set(_KEY, stored)

    def ask() -> Any:
        return predict.delay(question=question).get()

    ask()
    found = ask().metadata.cache_level
    if found != cache_level:
        raise RuntimeError(f"the answer comes from {found}, not from {cache_level}")
    get = functools.partial(client.get, _KEY)
    blocks = {"hit": seconds_per_call(calls, ask), "get": seconds_per_call(calls, get)}
    return alternate(rounds, blocks) | {
        "round_trips": round_trips_per_call(url, calls, ask),
        "answer_bytes": len(stored),
    }
