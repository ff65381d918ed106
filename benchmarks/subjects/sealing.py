"""Asks a plain and a sealed configuration of one process in turns."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

import redis

import dspyq
from benchmarks.repetition import alternate, seconds_per_call
from dspyq import predict
from dspyq.cache.memory import process_cache
from dspyq.sealing.envelope import open_envelope, seal

_HEARING_SECONDS = 1.0
_numbers = itertools.count()


def ask(question: str) -> str:
    """Have a worker answer a question."""
    return str(predict.delay(question=question).get(timeout=60).answer)


def measure(paths: dict[str, str], question: str, calls: int, rounds: int) -> dict[str, Any]:
    """Measure hits from Redis and from memory, and misses.

    Args:
        paths: The configurations, by ``plain`` and ``sealed``.
        question: A question that both have answered.
        calls: The calls of a block.
        rounds: The blocks of each side.

    Returns:
        By path and side the seconds of a call in each round; and ``answer_bytes`` of both, the plain first.
    """
    url = os.environ["DSPYQ_REDIS_URL"]
    blocks: dict[str, Callable[[], float]] = {}
    sides = []
    sizes = []
    for name, path in paths.items():
        for level, entries in (("L2", 0), ("L1", 1000)):
            side = dspyq.configured(path, redis_url=url, cache={"memory_entries": entries})
            sides.append(side)
            with side.active():
                process_cache()
                time.sleep(_HEARING_SECONDS)  # a memory cache is used once it hears invalidations
            hit = _hit(side, question)
            hit()
            wanted = {"L2": "redis", "L1": "memory"}[level]
            if (found := hit().metadata.cache_level) != wanted:
                raise RuntimeError(f"the answer comes from {found}, not from {wanted}")
            blocks[f"hit in {level}, {name}"] = seconds_per_call(calls, hit)
        blocks[f"miss, {name}"] = seconds_per_call(calls, _miss(sides[-2], question))
        task_id = sides[-2].predict.delay(question=question).id
        sizes.append(redis.Redis.from_url(url).strlen(f"{name}:celery-task-meta-{task_id}"))
    return alternate(rounds, blocks) | {"answer_bytes": sizes}


def measure_envelopes(text_bytes: int, calls: int) -> dict[str, float]:
    """Return the seconds that it takes to seal and to open a text, without anything around it."""
    key, text, owner = bytes(32), os.urandom(text_bytes), b"an owner of some length, as tasks have one"
    sealed = seal(b"k1234567", key, owner, text)
    return {
        "open": seconds_per_call(calls, lambda: open_envelope(key, owner, sealed))(),
        "seal": seconds_per_call(calls, lambda: seal(b"k1234567", key, owner, text))(),
    }


def _hit(side: dspyq.Configured, question: str) -> Callable[[], Any]:
    return lambda: side.predict.delay(question=question).get()


def _miss(side: dspyq.Configured, question: str) -> Callable[[], Any]:
    return lambda: side.predict.delay(question=f"{next(_numbers)} {question}")
