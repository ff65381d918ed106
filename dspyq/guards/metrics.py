"""Prometheus metrics of one worker process, docs/metrics.md. Every label has a bounded set of values.

``model`` is the name of a model's table, ``variant`` is ``<program>.<variant>``. Metrics of the whole fleet are in
``dspyq.worker.monitoring.fleet``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, Histogram, Summary
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from dspyq import errors
from dspyq.guards.call_records import ANSWERED, CallRecord

PREDICTIONS = Counter(
    "dspy_predictions_total", "Predictions that ended in this worker.", ["model", "status", "variant"]
)
PREDICTION_SECONDS = Histogram(
    "dspy_prediction_duration_seconds",
    "Seconds of predictions in this worker, not counting its queue.",
    ["model", "cached"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30),
)
OVERHEAD_SECONDS = Histogram(
    "dspy_overhead_seconds",
    "Seconds of computed predictions that were not the provider's.",
    ["model"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
)
ACTIVE_REQUESTS = Gauge("dspy_active_requests", "Predictions that run in this worker now.")
ERRORS = Counter("dspy_errors_total", "Predictions that failed, by error.", ["model", "error_type"])
MODEL_CALLS = Counter("dspy_model_calls_total", "Attempts to call a model.", ["model", "outcome"])
PROVIDER_SECONDS = Counter("dspy_provider_seconds_total", "Seconds of those.", ["model"])
TOKENS_USED = Counter("dspy_tokens_used_total", "Tokens that providers counted.", ["model", "type"])
COST_USD = Counter("dspy_cost_usd_total", "What model calls cost; the most they may have, where unknown.", ["model"])
BREAKER_REJECTIONS = Counter(
    "dspy_circuit_breaker_rejections_total", "Model calls that the circuit breaker refused.", ["model"]
)
REFUSALS = Counter("dspy_guard_refusals_total", "Model calls that a guard refused, by error.", ["model", "error_type"])
USAGE_BEYOND_REQUEST = Counter(
    "dspy_usage_beyond_request_total", "Replies that count more than their request allows.", ["model"]
)
TRUNCATED_ANSWERS = Counter("dspy_truncated_answers_total", "Answers that were cut off at max_tokens.", ["model"])
MENDED_REPLIES = Counter("dspy_mended_replies_total", "Replies that could not be read as they came.", ["model"])
RATE_LIMIT_WAITS = Counter("dspy_rate_limit_waits_total", "Calls that waited for their turn.", ["model"])
RATE_LIMIT_WAIT_SECONDS = Counter(
    "dspy_rate_limit_wait_seconds_total", "Seconds that calls waited for their turn.", ["model"]
)
BUDGET_WARNINGS = Counter(
    "dspy_budget_warnings_total",
    "Limits that a call of this worker was the first to use up to a percentage.",
    ["scope", "period", "percentage"],
)
GUARD_REDIS_FAILURES = Counter(
    "dspy_guard_redis_failures_total", "Times Redis did not answer whether a model may be called.", ["model"]
)
LOG_ENTRIES_DROPPED = Counter(
    "dspy_log_entries_dropped_total", "Log entries that found no room, because their reader is slow or gone.", ["sink"]
)
SPANS_LOST = Counter("dspy_spans_lost_total", "Spans that tracing.endpoint did not take.")
#: Without ``_total`` by its name, and so a gauge; it only grows.
QUESTION_COMPLEXITY = Gauge("dspy_question_complexity", "Questions computed, by category.", ["category"])
ANSWER_QUALITY_SCORE = Gauge("dspy_answer_quality_score", "Mean of the latest 100 scores of answers.", ["model"])
ANSWER_QUALITY = Summary("dspy_answer_quality", "Every score of an answer.", ["variant", "scorer"])

#: Outcomes of an attempt, by the codes of lm15's errors; any other error is ``other``.
_OUTCOMES = frozenset({
    ANSWERED, "ambiguous_model", "auth", "billing", "collection_limit", "context_length", "invalid_request",
    "lock_timeout", "not_configured", "provider", "rate_limit", "server", "stream_assembly", "timeout", "transport",
    "unknown_model", "unsupported_feature", "unsupported_model",
})  # fmt: skip


class CallCounters:
    """Counters of a model's calls. Labels are looked up once, to save microseconds on each call.

    Args:
        model: The model's table.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._prompt_tokens = TOKENS_USED.labels(model, "prompt")
        self._completion_tokens = TOKENS_USED.labels(model, "completion")
        self._cost_usd = COST_USD.labels(model)
        self._seconds = PROVIDER_SECONDS.labels(model)
        self._outcomes = {ANSWERED: MODEL_CALLS.labels(model, ANSWERED)}

    def count(self, call: CallRecord) -> None:
        """Count an attempt, its tokens and its cost."""
        counter = self._outcomes.get(call.outcome)
        if counter is None:
            outcome = call.outcome if call.outcome in _OUTCOMES else "other"
            counter = MODEL_CALLS.labels(self._model, outcome)
        counter.inc()
        self._seconds.inc(call.duration_seconds)
        self._prompt_tokens.inc(call.prompt_tokens or 0)
        self._completion_tokens.inc(call.completion_tokens or 0)
        self._cost_usd.inc(call.cost_usd or 0.0)


def error_type(error: BaseException) -> str:
    """Return the label of an error: its nearest class in ``dspyq.errors``, so that the number of labels is bounded."""
    for cls in type(error).__mro__:
        if cls.__module__ == errors.__name__:
            return cls.__name__
    return "Other"


class ToleratedFailures(Collector):
    """Collector of tolerated failures. Counters stay where the failures happen and are read at each scrape."""

    def __init__(self) -> None:
        self._counts: dict[str, Callable[[], int]] = {}

    def watch(self, kind: str, count: Callable[[], int]) -> None:
        """Expose a counter under a label.

        Args:
            kind: The label, one of few.
            count: Returns the number of such failures in this process so far.
        """
        self._counts[kind] = count

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        family = CounterMetricFamily(
            "dspy_tolerated_failures", "What went wrong in this process and was survived.", labels=["kind"]
        )
        for kind, count in sorted(self._counts.items()):
            family.add_metric([kind], count())
        yield family


TOLERATED = ToleratedFailures()
