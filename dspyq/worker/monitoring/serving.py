"""What is served of a worker where ``metrics.port`` says: metrics and health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.registry import REGISTRY

from dspyq.client.metrics import metrics_page, register
from dspyq.config.settings import Settings
from dspyq.core.http_server import listen
from dspyq.delivery.leases import Leases
from dspyq.delivery.pauses import Pauses
from dspyq.guards import metrics
from dspyq.guards.model import Guards
from dspyq.guards.queue_pauser import Upkeep
from dspyq.worker.consumer_watchdog import Progress
from dspyq.worker.monitoring.cache_size import CacheSize
from dspyq.worker.monitoring.fleet import Fleet, FleetCollector
from dspyq.worker.monitoring.health import Health
from dspyq.worker.monitoring.holdings import HoldingsCollector
from dspyq.worker.monitoring.scoring import Scoring

logger = logging.getLogger("dspyq.metrics")


class Monitoring:
    """A worker's metrics and health."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a worker it looks at
        self,
        settings: Settings,
        queues: Iterable[str],
        guards: Guards,
        leases: Leases,
        pauses: Pauses,
        upkeep: Upkeep,
        scoring: Scoring,
    ) -> None:
        """Serve them.

        Args:
            settings: The configuration.
            queues: The queues this worker serves.
            guards: The guards of its models.
            leases: Its leases.
            pauses: Its pauses.
            upkeep: What keeps the guards going.
            scoring: What scores its answers.

        Raises:
            ConfigurationError: If the port cannot be listened at.
        """
        self._health = Health(settings, guards, leases, pauses)
        self._holdings = HoldingsCollector(queues, leases, pauses, guards.settlements)
        self._cache_size = CacheSize()
        fleet = FleetCollector(settings, Fleet(settings, guards.breakers))
        register()
        REGISTRY.register(self._holdings)
        REGISTRY.register(fleet)
        REGISTRY.register(metrics.TOLERATED)  # after those whose failures it shows
        watched: dict[str, Callable[[], int]] = {
            "beat": lambda: leases.failed_beats,
            "guard_upkeep": lambda: upkeep.failures,
            "breaker_outcome": lambda: sum(breaker.unsaid for breaker in guards.breakers.values()),
            "consumer_restart": lambda: self._health.progress.restarts if self._health.progress else 0,
            "fleet_read": lambda: fleet.failures,
            "cache_size": lambda: self._cache_size.failures,
            "scorer": lambda: scoring.failures,
            "score_dropped": lambda: scoring.dropped,
        }
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

    def begin(self, progress: Progress) -> None:
        """Note that the worker consumes; begin to look at what it depends on."""
        self._health.progress = self._holdings.progress = progress
        self._health.phase = "running"
        self._health.start()
        self._cache_size.start()

    def end(self, **_: Any) -> None:
        """Note that the worker is ending: it takes no more jobs; receives Celery's signal."""
        self._health.phase = "ending"
