"""Prometheus metrics of what a worker does for lanes, docs/metrics.md. ``model`` is the name of a model's table.

What lanes hold is the same for all workers, and stands among the fleet's metrics.
"""

from __future__ import annotations

from prometheus_client import Counter, Histogram

SECONDS = Histogram(
    "dspy_lane_seconds",
    "Seconds from the creation of a batch at the provider to its end.",
    ["model"],
    buckets=(60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 57_600, 86_400, 93_600),
)
LANDED = Counter("dspy_lane_landed_total", "Lines of a lane that landed.", ["model", "outcome"])
UNANSWERED = Counter("dspy_lane_unanswered_total", "Lines that the provider did not execute.", ["model", "reason"])
DOUBLES = Counter("dspy_lane_doubles_total", "Batches that were created twice at the provider.", ["model"])
UNKNOWN = Counter(
    "dspy_lane_lines_without_hold_total",
    "Lines that landed without a hold: their bills may be in no account.",
    ["model"],
)
REFUSALS = Counter("dspy_lane_refusals_total", "Shipments that the provider refused.", ["model", "reason"])
FAILURES = Counter("dspy_lane_failures_total", "Steps of a lane that are tried again.", ["model", "error_type"])
PROMOTED = Counter("dspy_lane_promoted_total", "Calls of a lane made live, because a caller waits.", ["model"])


def begin(model: str) -> None:
    """Show a lane's series from the start, so that the first change of each is seen as one."""
    SECONDS.labels(model)
    for outcome in ("answered", "failed", "unanswered"):
        LANDED.labels(model, outcome)
    FAILURES.labels(model, "ProviderBusy")
    DOUBLES.labels(model)
    UNKNOWN.labels(model)
