"""The log entry of a prediction: the same of a worker that answered it, and of a producer that had it cached."""

from __future__ import annotations

import logging
import time

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.prediction.prediction import CacheLevel
from dspyq.prediction.request import Header, Request

logger = logging.getLogger("dspyq.predictions")


def prediction_event(  # noqa: PLR0913 - the fields of an entry, all by name
    header: Header | None,
    *,
    task_id: str,
    model: str | None,
    status: str,
    duration_seconds: float,
    cache_level: CacheLevel | None = None,
    tokens: int = 0,
    cost_usd: float | None = 0.0,
    error: str | None = None,
) -> Event:
    """Return the entry.

    Args:
        header: What was asked; None where it could not be read.
        task_id: The task that answered.
        model: The model's table in the configuration.
        status: ``success``, ``fallback`` or ``error``.
        duration_seconds: How long it took, over all runs.
        cache_level: Where a cached answer came from.
        tokens: What this prediction used itself: 0 where it was cached.
        cost_usd: What it cost itself; None where that is unknown.
        error: The type of what it failed with.
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
        cache_hit=cache_level is not None,
        cache_level=cache_level,
        duration_ms=round(duration_seconds * 1000, 3),
        tokens=tokens,
        cost_usd=cost_usd,
        status=status,
        error=error,
    )
    if batch := asked.get("batch"):
        event.fields["batch"] = batch
    return event


def log_hit(request: Request, task_id: str, cache_level: CacheLevel, asked_at: float) -> None:
    """Log an answer that a producer had from the cache, where ``logging.producer_entries`` says so."""
    if not get_settings().logging.producer_entries:
        return
    logger.info(
        prediction_event(
            request.header(is_claimed=False),
            task_id=task_id,
            model=request.variant.model.name,
            status="success",
            duration_seconds=time.monotonic() - asked_at,
            cache_level=cache_level,
        )
    )
