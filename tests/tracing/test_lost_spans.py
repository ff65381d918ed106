"""Spans that OpenTelemetry's queue has no room for are counted."""

import threading
from types import SimpleNamespace

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from dspyq.tracing.spans import _QUEUE_SPANS, Export
from tests.support.processes import eventually


class Stuck:
    """An exporter that hangs until it is released."""

    def __init__(self):
        self.begun, self.released, self.taken = threading.Event(), threading.Event(), 0

    def export(self, spans):
        self.begun.set()
        self.released.wait(30)
        self.taken += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.released.set()


def test_each_span_is_exported_or_counted_as_lost():
    stuck, told = Stuck(), []
    export = Export(stuck, "http://collector")
    export.count_lost = told.append
    processor = BatchSpanProcessor(export, _QUEUE_SPANS)
    processor.on_end = export.counting(processor.on_end)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("t")

    def end_spans(count):
        for _ in range(count):
            tracer.start_span("s").end()

    end_spans(512)  # a whole batch
    assert stuck.begun.wait(60)
    end_spans(_QUEUE_SPANS + 100)
    assert export.lost_spans == sum(told) == 100
    stuck.released.set()
    eventually(lambda: stuck.taken == 512 + _QUEUE_SPANS)
    end_spans(10)
    provider.shutdown()
    assert (stuck.taken, export.lost_spans) == (512 + _QUEUE_SPANS + 10, 100)


def test_a_producers_metrics_show_its_lost_spans(configured, monkeypatch):
    del configured
    from dspyq.client import metrics

    monkeypatch.setattr(metrics, "process_tracing", lambda: SimpleNamespace(export=SimpleNamespace(lost_spans=3)))
    found = {sample.name: sample.value for family in metrics.ProducerCollector().collect() for sample in family.samples}
    assert found["dspy_producer_spans_lost_total"] == 3
