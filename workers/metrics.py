"""What Prometheus reads of a worker. No label has values that grow without bound: models and scopes are few."""

from __future__ import annotations

import logging
from collections.abc import Callable

from prometheus_client import Counter, Gauge, start_http_server

from config.errors import ConfigurationError
from config.tables import Metrics
from workers.ledger import CallRecord

logger = logging.getLogger("dspyq.metrics")

TOKENS_USED = Counter("dspy_tokens_used_total", "Tokens that providers counted.", ["model", "type"])
COST_USD = Counter("dspy_cost_usd_total", "What model calls cost; the most they may have, where unknown.", ["model"])
BREAKER_OPEN = Gauge(
    "dspy_circuit_breaker_open", "0 closed, 0.5 half-open, 1 open: as this worker knows it of all workers.", ["model"]
)
BREAKER_REJECTIONS = Counter(
    "dspy_circuit_breaker_rejections_total", "Model calls that the circuit breaker refused.", ["model"]
)
REFUSALS = Counter("dspy_guard_refusals_total", "Model calls that a guard refused, by error.", ["model", "error_type"])
RATE_LIMIT_WAIT_SECONDS = Counter(
    "dspy_rate_limit_wait_seconds_total", "Seconds that calls waited for their turn.", ["model"]
)
BUDGET_WARNINGS = Counter(
    "dspy_budget_warnings_total",
    "Limits that a call of this worker was the first to use up to a percentage.",
    ["scope", "period", "percentage"],
)
GUARD_REDIS_FAILURES = Counter(
    "dspy_guard_redis_failures_total", "Times Redis could not say whether a model may be called.", ["model"]
)
LOG_ENTRIES_DROPPED = Counter(
    "dspy_log_entries_dropped_total", "Log entries that found no room, because their reader is slow or gone.", ["sink"]
)


_BREAKER_VALUES = {"closed": 0.0, "half-open": 0.5, "open": 1.0}


class CallCounters:
    """What is counted of each call of a model. Its labels are looked up once: a call is worth fewer microseconds.

    Args:
        model: The model's table.
    """

    def __init__(self, model: str) -> None:
        self._prompt_tokens = TOKENS_USED.labels(model, "prompt")
        self._completion_tokens = TOKENS_USED.labels(model, "completion")
        self._cost_usd = COST_USD.labels(model)

    def count(self, call: CallRecord) -> None:
        """Count what an attempt used and cost."""
        self._prompt_tokens.inc(call.prompt_tokens or 0)
        self._completion_tokens.inc(call.completion_tokens or 0)
        self._cost_usd.inc(call.cost_usd or 0.0)


def show_breaker(model: str, state: Callable[[], str]) -> None:
    """Have the gauge ask for the breaker's state whenever it is read."""
    BREAKER_OPEN.labels(model).set_function(lambda: _BREAKER_VALUES[state()])


def serve(settings: Metrics) -> None:
    """Serve ``/metrics``, where a port is configured.

    Raises:
        ConfigurationError: If that port is taken.
    """
    if settings.port is None:
        return
    try:
        server, _ = start_http_server(settings.port, settings.address)
    except OSError as error:
        where = f"{settings.address}:{settings.port}"
        raise ConfigurationError(f"metrics.port: cannot listen at {where}: {error.strerror}; 0 picks a port") from error
    logger.warning("metrics are served at http://%s:%d/metrics", settings.address, server.server_port)
