"""Answers that this process keeps in memory: kept as a caller fetches them, dropped once forgotten or damaged."""

from __future__ import annotations

import functools
import time

from dspyq.cache.claims import process_claims
from dspyq.cache.memory import FreshAnswer, cache_of
from dspyq.client.off_loop import soon
from dspyq.prediction.prediction import Prediction
from dspyq.prediction.request import Request
from dspyq.store.spines import by_owners


def remember(request: Request, prediction: Prediction, answer: FreshAnswer, milliseconds_left: int | None) -> None:
    """Keep an answer in memory with its original cost, as long as Redis serves it.

    Args:
        request: The question.
        prediction: The answer.
        answer: The answer as the cache keeps it; how long it is served is set here.
        milliseconds_left: How long Redis serves it; None where that follows from its age.
    """
    cache = cache_of(request.input_hash)
    if not cache.is_on or not prediction.metadata.is_cacheable(request.program):
        return
    age_seconds = max(0.0, time.time() - prediction.metadata.timestamp)
    left = milliseconds_left
    seconds_left = request.program.cache_ttl_seconds - age_seconds if left is None else left / 1000
    cache.put(request.input_hash, answer._replace(seconds_left=seconds_left))


def forget_answer(input_hash: str) -> None:
    """Have the next call of a question compute it again, in this process and all others.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    for own in by_owners([input_hash], [input_hash]):
        process_claims().invalidate(own)
    cache_of(input_hash).invalidate(input_hash)


def forget_soon(input_hash: str) -> None:
    """Do as ``forget_answer``, at once in this process and without waiting for Redis."""
    cache_of(input_hash).invalidate(input_hash)
    soon(functools.partial(forget_answer, input_hash))
