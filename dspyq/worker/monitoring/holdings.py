"""Prometheus metrics of this worker's leases and pauses, read from their owners at each scrape."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspyq.delivery.pauses import Pauses
from dspyq.delivery.served_spines import HeldRuns
from dspyq.guards.outbox import Outbox
from dspyq.worker.consumer_watchdog import ConsumerWatchdog
from dspyq.worker.monitoring.quiet import Shown


class HoldingsCollector(Collector):
    """Collector of a worker's leases, pauses and watchdog.

    Args:
        queues: The queues it serves.
        held: The runs that it holds.
        pauses: Its pauses.
        outbox: Its outbox of writes about calls.

    Attributes:
        watchdog: The watchdog of its consumer, once there is one.
    """

    def __init__(self, queues: Iterable[str], held: HeldRuns, pauses: Pauses, outbox: Outbox) -> None:
        self.watchdog: ConsumerWatchdog | None = None
        self._queues = sorted(queues)
        self._shown = Shown(len(self._queues))
        self._held = held
        self._pauses = pauses
        self._outbox = outbox

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        deliveries = CounterMetricFamily(
            "dspy_deliveries", "Jobs that this worker was given.", labels=["queue", "redelivered"]
        )
        for (queue, is_again), number in self._held.deliveries.items():
            deliveries.add_metric([queue, str(is_again).lower()], number)
        yield deliveries
        yield GaugeMetricFamily("dspy_held_jobs", "Jobs that this worker holds.", self._held.held_count)
        paused_now = self._pauses.queues
        paused = GaugeMetricFamily(
            "dspy_queue_paused", "1 while this worker takes nothing from a queue.", labels=["queue"]
        )
        for queue in self._queues:
            if self._shown.shows(queue, queue in paused_now):
                paused.add_metric([queue], float(queue in paused_now))
        yield paused
        yield GaugeMetricFamily(
            "dspy_consumer_stalled_seconds",
            "For how long this worker asked for no job, though jobs waited and it had room.",
            self.watchdog.stalled_seconds if self.watchdog else 0.0,
        )
        yield GaugeMetricFamily(
            "dspy_unsettled_calls", "Model calls whose settlement Redis has not received yet.", self._outbox.late_count
        )
