"""Parts of the batch benchmark that run in processes of their own: a cache that is filled, and the others' loops."""

from __future__ import annotations

import time

import orjson
from celery.utils import uuid

from benchmarks.subjects import plain
from benchmarks.subjects.asking import questions
from dspyq.cache.claim import Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.core.money import to_nano_usd
from dspyq.prediction.prediction import Metadata, Usage, to_json
from dspyq.prediction.request import build_request


def fill(count: int, label: str) -> None:
    """Put answers to questions into the cache, as workers store them."""
    claims = process_claims()
    for question in questions(count, label):
        request = build_request({"question": question})
        task_id = uuid()
        claims.claim(request, task_id, priority=9)
        metadata = Metadata(
            program=request.program.name,
            variant=request.variant.name,
            model=request.variant.model.model,
            input_hash=request.input_hash,
            request_id=request.request_id,
            timestamp=time.time(),
            usage=Usage(141, 12),
            cost_usd=0.000165,
            duration_seconds=0.02,
        )
        result = to_json({"answer": f"echo:{question}"}, metadata)
        meta = {"status": "SUCCESS", "result": result, "traceback": None, "children": [], "date_done": None}
        meta["task_id"] = task_id
        stored = Stored(orjson.dumps(meta), 86_400, 86_400, {}, to_nano_usd(metadata.cost_usd or 0.0))
        claims.answer(metadata, Run(task_id), stored)


def delay(calls: int) -> float:
    """Return the seconds of one of plain Celery's calls."""
    return plain.seconds_per_delay(calls)()
