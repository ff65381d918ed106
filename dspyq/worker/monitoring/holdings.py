"""What Prometheus reads of what this worker holds and has paused; read where it is kept, when Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dspyq.delivery.leases import Leases
from dspyq.delivery.pauses import Pauses
from dspyq.guards.outbox import Settlements
from dspyq.worker.consumer_watchdog import Progress


class HoldingsCollector(Collector):
    """Shows a worker's leases, pauses and progress.

    Args:
        queues: The queues it serves.
        leases: Its leases.
        pauses: Its pauses.
        settlements: What Redis is told of calls.

    Attributes:
        progress: What watches its consumer, once that is there.
    """

    def __init__(self, queues: Iterable[str], leases: Leases, pauses: Pauses, settlements: Settlements) -> None:
        self.progress: Progress | None = None
        self._queues = sorted(queues)
        self._leases = leases
        self._pauses = pauses
        self._settlements = settlements

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        deliveries = CounterMetricFamily(
            "dspy_deliveries", "Jobs that this worker was given.", labels=["queue", "redelivered"]
        )
        for (queue, is_again), number in self._leases.deliveries.items():
            deliveries.add_metric([queue, str(is_again).lower()], number)
        yield deliveries
        yield GaugeMetricFamily("dspy_held_jobs", "Jobs that this worker holds.", self._leases.held_count)
        paused_now = self._pauses.queues
        paused = GaugeMetricFamily(
            "dspy_queue_paused", "1 while this worker takes nothing from a queue.", labels=["queue"]
        )
        for queue in self._queues:
            paused.add_metric([queue], float(queue in paused_now))
        yield paused
        yield GaugeMetricFamily(
            "dspy_consumer_stalled_seconds",
            "For how long this worker asked for no job, though jobs waited and it had room.",
            self.progress.stalled_seconds if self.progress else 0.0,
        )
        yield GaugeMetricFamily(
            "dspy_unsettled_calls", "Model calls that Redis could not be told of yet.", self._settlements.late_count
        )
