"""Prometheus metrics of a producer: the outcomes of its own calls, and its memory cache.

Nothing is loaded before it is needed, and nothing is counted twice: the numbers are those that
``dspyq.client.call_counters`` and the memory cache keep anyway, read when Prometheus reads.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping

from dspyq.cache.memory import process_totals
from dspyq.client.call_counters import process_calls
from dspyq.core.http_server import Response, WebServer, listen
from dspyq.core.tolerated import KINDS, tolerated
from dspyq.errors import ConfigurationError
from dspyq.tracing.tracing import process_tracing

try:
    import prometheus_client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import REGISTRY, Collector

    from dspyq.client.sealing_metrics import sealing_metrics
except ImportError as error:
    raise ConfigurationError("metrics need prometheus-client: pip install 'dspyq[metrics]'") from error

logger = logging.getLogger("dspyq.metrics")

#: Redis's verdict on a call, and the source of its answer.
_LEVELS = {"hit": "redis", "join": "joined", "urge": "joined"}

# The creation time of each series, as a series of its own, would double their number; nothing uses it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it is not annotated


class ProducerCollector(Collector):
    """This process's own calls of ``predict``."""

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        memory, calls = process_totals(), process_calls()
        levels = {"memory": memory.hits, "redis": 0, "joined": 0}
        misses: dict[str, int] = {}
        for (verdict, model), number in calls.verdicts.items():
            if verdict in _LEVELS:
                levels[_LEVELS[verdict]] += number
            else:
                misses[model] = misses.get(model, 0) + number
        yield _counter(
            "dspy_producer_cache_hits", "This process's calls that were answered without a run.", "level", levels
        )
        yield _counter("dspy_producer_cache_misses", "This process's calls that began a run.", "model", misses)
        yield _counter("dspy_producer_published", "Predictions this process sent.", "variant", calls.published)
        yield _counter(
            "dspy_producer_tolerated_failures",
            "What went wrong in this process and was survived.",
            "kind",
            {kind: number for kind in KINDS if (number := tolerated(kind))},
        )
        yield from sealing_metrics()
        tracing = process_tracing()
        if tracing is not None and tracing.export is not None:
            yield CounterMetricFamily(
                "dspy_producer_spans_lost",
                "This process's spans that tracing.endpoint did not take.",
                tracing.export.lost_spans,
            )
        yield CounterMetricFamily(
            "dspy_memory_cache_evictions", "Answers that left this process's memory for want of room.", memory.evictions
        )
        yield GaugeMetricFamily("dspy_memory_cache_entries", "Answers in this process's memory.", memory.entries)
        yield GaugeMetricFamily("dspy_memory_cache_size_bytes", "Their bytes.", memory.size_bytes)


def serve(port: int = 0, address: str = "127.0.0.1") -> WebServer:
    """Serve ``/metrics`` of this process, in a thread.

    Args:
        port: The port; 0 picks a free one, which the returned server's ``port`` and ``url`` name.
        address: The address to listen at.

    Raises:
        ConfigurationError: If the address and port are not available.
    """
    register_metrics()
    server = listen(address, port, {"/metrics": metrics_page}, setting="dspyq.client.metrics.serve(port)")
    logger.warning("metrics are served at %s/metrics", server.url)
    return server


@functools.cache
def register_metrics() -> None:
    """Add this process's calls of ``predict`` to its metrics, once."""
    REGISTRY.register(ProducerCollector())


def metrics_page(accept: str) -> Response:
    """Return all metrics of this process, in a format that the scraper accepts."""
    encode, content_type = choose_encoder(accept)
    return Response(encode(REGISTRY), content_type)


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
