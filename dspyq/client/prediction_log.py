"""Log entry of a prediction, the same for a worker's answer and a producer's cache hit."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.prediction.header import Header
from dspyq.prediction.prediction import CacheLevel
from dspyq.prediction.request import Request

logger = logging.getLogger("dspyq.predictions")


@dataclass(frozen=True)
class PredictionOutcome:
    """Outcome of a prediction, as its entry states it.

    Attributes:
        status: ``success``, ``fallback`` or ``error``.
        duration_seconds: Its duration, over all runs.
        cache_level: Where a cached answer came from.
        tokens: Tokens used for this prediction: 0 if it was cached.
        cost_usd: Cost of this prediction; None if unknown.
        error: The type of its error.
    """

    status: str
    duration_seconds: float
    cache_level: CacheLevel | None = None
    tokens: int = 0
    cost_usd: float | None = 0.0
    error: str | None = None


def prediction_event(header: Header | None, outcome: PredictionOutcome, *, task_id: str, model: str | None) -> Event:
    """Return the entry.

    Args:
        header: The request's header; None if it could not be read.
        outcome: The prediction's outcome.
        task_id: The task that answered.
        model: The model's table in the configuration.
    """
    asked = header._asdict() if header else {}
    event = Event(
        "prediction",
        request_id=asked.get("request_id"),
        task_id=task_id,
        service=get_settings().logging.service_name,
        model=model,
        program=asked.get("program"),
        variant=asked.get("variant"),
        input_hash=asked.get("input_hash"),
        cache_hit=outcome.cache_level is not None,
        cache_level=outcome.cache_level,
        duration_ms=round(outcome.duration_seconds * 1000, 3),
        tokens=outcome.tokens,
        cost_usd=outcome.cost_usd,
        status=outcome.status,
        error=outcome.error,
    )
    if batch := asked.get("batch"):
        event.fields["batch"] = batch
    return event


def log_hit(request: Request, task_id: str, cache_level: CacheLevel, asked_at: float) -> None:
    """Log a producer's cache hit, if ``logging.producer_entries`` is set."""
    if not get_settings().logging.producer_entries:
        return
    logger.info(
        prediction_event(
            request.header(is_claimed=False),
            PredictionOutcome("success", time.monotonic() - asked_at, cache_level),
            task_id=task_id,
            model=request.variant.model.name,
        )
    )
