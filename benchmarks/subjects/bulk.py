"""Asks and looks up rows in bulk, from their inputs on, beside plain Celery's ``delay()``, in one thread."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import orjson
import redis
from celery.utils import uuid

from benchmarks.repetition import alternate
from benchmarks.subjects import plain
from dspyq.cache.claim import Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.client.bulk import CHUNK_ROWS
from dspyq.client.spread_bulk import process_bulk
from dspyq.prediction.prediction import Metadata, Usage, to_json
from dspyq.prediction.request import Request, build_request

_LEAST_URGENT = 9
_KEEP_SECONDS = 3600


def measure(rows: int, calls: int, rounds: int) -> dict[str, Any]:
    """Measure rows that are new, and rows that are cached.

    Args:
        rows: The rows of a block of ours.
        calls: The calls of a block of plain Celery's.
        rounds: The blocks of each.

    Returns:
        The seconds of a row in each round as ``new``, ``cached`` and ``plain Celery``; ``cpu_seconds``, of a new and of
        a cached row, Redis's included; and ``answer_bytes``.
    """
    client = redis.Redis.from_url(os.environ["DSPYQ_REDIS_URL"])
    cached = [plain.new_question() for _ in range(rows)]
    answer_bytes = _answer(cached)

    def ask_new() -> None:
        _in_chunks([plain.new_question() for _ in range(rows)], _ask)

    def look_up() -> None:
        _in_chunks(cached, _look)

    ours: dict[str, Callable[[], None]] = {"new": ask_new, "cached": look_up}
    cpu_seconds = {name: _cpu_seconds(client, block) / rows for name, block in ours.items()}
    blocks = {name: functools.partial(_seconds_per_row, block, rows) for name, block in ours.items()}
    seconds = alternate(rounds, blocks | {"plain Celery": plain.seconds_per_delay(calls)})
    return seconds | {"cpu_seconds": cpu_seconds, "answer_bytes": answer_bytes}


def _ask(requests: list[Request]) -> None:
    claims = process_bulk().ask(requests, [uuid() for _ in requests], priority=_LEAST_URGENT)
    if any(claim.verdict != "claim" for claim in claims):
        raise RuntimeError("a new row was none")


def _look(requests: list[Request]) -> None:
    if not all(process_bulk().peek(requests)):
        raise RuntimeError("a cached row was none")


def _in_chunks(questions: list[str], use: Callable[[list[Request]], None]) -> None:
    for start in range(0, len(questions), CHUNK_ROWS):
        use([build_request({"question": question}) for question in questions[start : start + CHUNK_ROWS]])


def _answer(questions: list[str]) -> int:
    """Answer questions as a worker does, but for asking a model; return the bytes of one answer."""
    payload = b""
    for question in questions:
        request = build_request({"question": question})
        metadata = Metadata(
            program=request.program.name,
            variant=request.variant.name,
            model=request.variant.model.model,
            input_hash=request.input_hash,
            request_id=request.request_id,
            timestamp=time.time(),
            usage=Usage(100, 50),
            cost_usd=0.0002,
            duration_seconds=1.0,
        )
        task_id = process_claims().claim(request, uuid(), priority=_LEAST_URGENT).task_id
        result = to_json({"answer": f"An answer to: {question}"}, metadata)
        meta = {"status": "SUCCESS", "result": result, "traceback": None, "children": [], "task_id": task_id}
        payload = orjson.dumps(meta)
        process_claims().answer(request, Run(task_id), Stored(payload, _KEEP_SECONDS, _KEEP_SECONDS, {"successes": 1}))
    return len(payload)


def _seconds_per_row(block: Callable[[], None], rows: int) -> float:
    started = time.perf_counter()
    block()
    return (time.perf_counter() - started) / rows


def _cpu_seconds(client: redis.Redis, block: Callable[[], None]) -> float:
    """Return the processor time of a block, here and in Redis."""

    def used() -> float:
        server: dict[str, float] = client.info("cpu")
        return time.process_time() + server["used_cpu_user"] + server["used_cpu_sys"]

    before = used()
    block()
    return used() - before
