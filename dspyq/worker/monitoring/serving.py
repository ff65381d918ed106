"""HTTP server of a worker's metrics and health, on ``metrics.port``."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client.registry import REGISTRY

from dspyq.client.metrics import metrics_page, register_metrics
from dspyq.config.settings import Settings
from dspyq.core.http_server import listen
from dspyq.core.tolerated import KINDS, tolerated
from dspyq.delivery.beat import process_beat
from dspyq.delivery.pauses import Pauses
from dspyq.delivery.served_spines import HeldRuns, process_served_spines
from dspyq.guards import metrics
from dspyq.guards.model import Guards
from dspyq.guards.queue_pauser import Upkeep
from dspyq.worker.consumer_watchdog import ConsumerWatchdog
from dspyq.worker.monitoring.cache_size import CacheSize
from dspyq.worker.monitoring.experiments import ExperimentCollector
from dspyq.worker.monitoring.fleet import Fleet, FleetCollector
from dspyq.worker.monitoring.health import Health
from dspyq.worker.monitoring.holdings import HoldingsCollector
from dspyq.worker.monitoring.scoring import Scoring

logger = logging.getLogger("dspyq.metrics")


@dataclass(frozen=True)
class WorkerParts:
    """Parts of a worker that its metrics and health read.

    Attributes:
        queues: The queues it serves.
        guards: The guards of its models.
        held: The runs that it holds.
        pauses: Its pauses.
        upkeep: Upkeep of the guards.
        scoring: Scoring of its answers.
    """

    queues: Iterable[str]
    guards: Guards
    held: HeldRuns
    pauses: Pauses
    upkeep: Upkeep
    scoring: Scoring


class Monitoring:
    """A worker's metrics and health."""

    def __init__(self, settings: Settings, parts: WorkerParts) -> None:
        """Start the server.

        Args:
            settings: The configuration.
            parts: The parts of the worker.

        Raises:
            ConfigurationError: If the port is not available.
        """
        guards, held, pauses, upkeep, scoring = parts.guards, parts.held, parts.pauses, parts.upkeep, parts.scoring
        self._health = Health(settings, guards, held, pauses)
        self._holdings = HoldingsCollector(parts.queues, held, pauses, guards.outbox)
        self._cache_size = CacheSize()
        fleet = FleetCollector(settings, Fleet(settings, guards.breakers))
        experiments = ExperimentCollector(settings)
        register_metrics()
        REGISTRY.register(self._holdings)
        REGISTRY.register(fleet)
        REGISTRY.register(experiments)
        REGISTRY.register(metrics.TOLERATED)  # after those whose failures it shows
        watched: dict[str, Callable[[], int]] = {
            "beat": lambda: sum(process_served_spines().on_each(lambda: process_beat().failures)),
            "guard_upkeep": lambda: upkeep.failures,
            "breaker_outcome": lambda: sum(breaker.unreported for breaker in guards.breakers.values()),
            "consumer_restart": lambda: self._health.watchdog.restarts if self._health.watchdog else 0,
            "fleet_read": lambda: fleet.failures,
            "experiment_read": lambda: experiments.failures,
            "cache_size": lambda: self._cache_size.failures,
            "scorer": lambda: scoring.failures,
            "score_dropped": lambda: scoring.dropped,
        }
        watched |= {kind: functools.partial(tolerated, kind) for kind in KINDS}
        routes = {
            "/metrics": metrics_page,
            "/health": self._health.health_page,
            "/livez": self._health.live_page,
            "/readyz": self._health.ready_page,
        }
        server = listen(settings.metrics.address, settings.metrics.port or 0, routes, setting="metrics.port")
        watched["http_turned_away"] = lambda: server.turned_away
        for kind, count in watched.items():
            metrics.TOLERATED.watch(kind, count)
        logger.warning("metrics are served at %s/metrics and health at %s/health", server.url, server.url)

    def begin(self, watchdog: ConsumerWatchdog) -> None:
        """Note that the worker consumes; start the checks of its dependencies."""
        self._health.watchdog = self._holdings.watchdog = watchdog
        self._health.phase = "running"
        self._health.start()
        self._cache_size.start()

    def end(self, **_: Any) -> None:
        """Note that the worker is ending: it takes no more jobs; receives Celery's signal."""
        self._health.phase = "ending"
