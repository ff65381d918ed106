"""Prometheus metrics of sealing in this process: its keys, and content that it did not take."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dspyq.core.runtime import in_all_runtimes
from dspyq.sealing.refusals import refusals
from dspyq.store.seal_keys import process_keys


def sealing_metrics() -> Iterator[Metric]:
    """Yield them; none where nothing is sealed and nothing sealed was met."""
    rings = [keys.ring for keys in in_all_runtimes(process_keys)]
    counts = refusals.counts()
    if not rings and not any(counts.values()):
        return
    refused = CounterMetricFamily("dspy_content_refused", "Content that this process did not take.", labels=["cause"])
    for cause, number in counts.items():
        refused.add_metric([cause], number)
    yield refused
    keys = GaugeMetricFamily("dspy_encryption_key", "1 for each key that this process has.", labels=["key_id", "use"])
    for key_id, use in sorted({pair for ring in rings for pair in ring.uses()}):
        keys.add_metric([key_id, use], 1.0)
    yield keys
    unknown = GaugeMetricFamily(
        "dspy_unknown_key", "1 for each key that content named in the last five minutes and this process lacks.",
        labels=["key_id"],
    )  # fmt: skip
    for key_id in refusals.unknown_keys():
        unknown.add_metric([key_id], 1.0)
    yield unknown
