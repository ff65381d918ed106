"""Predictions as the API shows them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from dspyq.prediction.prediction import Metadata, metadata_to_json
from dspyq.serve.predictions.ids import CallOfPrediction

PredictionStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
TERMINAL: frozenset[PredictionStatus] = frozenset({"succeeded", "failed", "cancelled"})
#: The time between two looks of a client that polls.
POLL_SECONDS = 1
#: Members of a prediction's metadata that clients see; program and variant stand beside them.
_SHOWN_METADATA = (
    "model", "usage", "cost_usd", "duration_seconds", "cached", "cache_level", "fallback", "finish_reason",
    "is_truncated", "request_id",
)  # fmt: skip
#: Most calls are of the last few seconds.
_SECONDS_KEPT = 64
#: In UTC, without its name: times are written with a Z.
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as above


class PublicCall(NamedTuple):
    """A call, as the client that made it finds it.

    Attributes:
        call: The call.
        public_id: Its public id.
        path: The path of its resource.
        events_path: The path of its stream, with a token.
    """

    call: CallOfPrediction
    public_id: str
    path: str
    events_path: str = ""


def succeeded(public: PublicCall, outputs: Mapping[str, Any], metadata: Metadata) -> dict[str, Any]:
    """Return an answered prediction.

    Args:
        public: Its call.
        outputs: Its outputs as JSON values.
        metadata: Its origin and cost, as this caller sees them.
    """
    shown = _prediction(public, "succeeded", metadata.program, metadata.variant)
    form = metadata_to_json(metadata)
    shown["outputs"] = outputs
    shown["metadata"] = {name: form[name] for name in _SHOWN_METADATA} | {"exposure": metadata.exposure}
    return shown


def unfinished(
    public: PublicCall, status: PredictionStatus, queue: str, waits_for: str | None = None
) -> dict[str, Any]:
    """Return a prediction without an answer: one that is queued or runs, or was cancelled.

    Args:
        public: Its call.
        status: Its status.
        queue: Its variant's queue; empty where that is not known.
        waits_for: The guard that holds it up: ``budget``, ``rate_limit`` or ``breaker``.
    """
    program, _, variant = queue.partition(".")
    shown = _prediction(public, status, program or None, variant or None)
    if waits_for is not None:
        shown["waits_for"] = waits_for
    return shown


def failed(public: PublicCall, problem: Mapping[str, Any], queue: str) -> dict[str, Any]:
    """Return a prediction that failed.

    Args:
        public: Its call.
        problem: The problem that it failed with, as JSON values.
        queue: As of ``unfinished``.
    """
    return unfinished(public, "failed", queue) | {"error": problem}


def _prediction(
    public: PublicCall, status: PredictionStatus, program: str | None, variant: str | None
) -> dict[str, Any]:
    return {
        "id": public.public_id,
        "object": "prediction",
        "status": status,
        "program": program,
        "variant": variant,
        "created_at": created_at(public.call),
        "outputs": None,
        "metadata": None,
        "error": None,
        "urls": urls(public),
    }


def created_at(call: CallOfPrediction) -> str:
    """Return the time of a call as text."""
    seconds, milliseconds = divmod(call.created_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03}Z"


@functools.lru_cache(maxsize=_SECONDS_KEPT)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()


def urls(public: PublicCall) -> dict[str, str]:
    """Return the paths of a call's resources."""
    return {"self": public.path, "cancel": f"{public.path}/cancel", "events": public.events_path}
