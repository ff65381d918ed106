"""OpenTelemetry spans. Only this module imports OpenTelemetry, on first use by ``dspyq.tracing.tracing``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dspyq.config.secrets import process_secrets, scrub
from dspyq.config.settings import Settings
from dspyq.core.events import Event

Attributes = Mapping[str, Any]
SpanRole = Literal["producer", "consumer", "client", "server"]

_TRACES_PATH = "/v1/traces"
_EXPORT_TIMEOUT_SECONDS = 10.0
#: Spans that wait to be exported; beyond this OpenTelemetry drops the oldest.
_QUEUE_SPANS = 2_048
#: Shortest time between two log entries about lost spans.
_SPEAK_SECONDS = 60.0

logger = logging.getLogger("dspyq.tracing")


class Tracing:
    """Spans, and their propagation from one process to the next.

    A tracer provider that the process has configured gets the spans; otherwise one of our own does, with an exporter
    to ``tracing.endpoint``. A thread exports them from a bounded queue, so predictions never wait for it.

    Args:
        settings: The configuration.

    Attributes:
        export: The exporter to ``tracing.endpoint``; None if the process has a provider of its own.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.export: Export | None = None
        self._own: Any = None
        self._carrier = TraceContextTextMapPropagator()
        self._tracer = self._provider().get_tracer("dspyq")

    def become_global(self) -> None:
        """Become the process's tracer provider if it has none, for its other instrumentation."""
        if self._own is not None:
            trace.set_tracer_provider(self._own)

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanRole,
        attributes: Attributes,
        parent: Any = None,
        code_of: Callable[[BaseException], str] = lambda error: type(error).__name__,
    ) -> Iterator[Span]:
        """Run a block in a span of its own.

        Args:
            name: The span's name.
            kind: Its kind.
            attributes: Its attributes at the start; values of None are left out.
            parent: The context that it belongs to; the current one where left out.
            code_of: Function that names an exception of the block.
        """
        with self._tracer.start_as_current_span(
            name,
            context=parent,
            kind=SpanKind[kind.upper()],
            attributes=_stated(attributes),
            record_exception=False,  # its text may quote an input
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except BaseException as error:
                self.fail(span, code_of(error))
                raise

    def begin(self, name: str, kind: SpanRole, attributes: Attributes, parent: Any) -> tuple[Span, object]:
        """Begin a span that does not end with a block; return it, and a token for ``end``."""
        span = self._tracer.start_span(
            name, context=parent, kind=SpanKind[kind.upper()], attributes=_stated(attributes)
        )
        return span, contexts.attach(trace.set_span_in_context(span, parent))

    @staticmethod
    def end(span: Span, token: Any) -> None:
        """End a span of ``begin``, in the same thread."""
        contexts.detach(token)
        span.end()

    @staticmethod
    def add(span: Span, attributes: Attributes) -> None:
        """Add attributes to a span."""
        span.set_attributes(_stated(attributes))

    @staticmethod
    def fail(span: Span, error_type: str) -> None:
        """Mark a span as failed."""
        span.set_attribute("error.type", process_secrets().scrub_line(error_type))
        span.set_status(Status(StatusCode.ERROR))

    @staticmethod
    def note(name: str, attributes: Attributes, span: Span | None = None) -> None:
        """Add an event to a span, or to the one that this thread is in."""
        (span or trace.get_current_span()).add_event(name, _stated(attributes))

    def headers(self) -> dict[str, str]:
        """Return the headers that carry the current span to another process."""
        carried: dict[str, str] = {}
        self._carrier.inject(carried)
        return carried

    def context_of(self, headers: Mapping[str, str]) -> contexts.Context:
        """Return the context that headers carry."""
        return self._carrier.extract(headers, context=contexts.Context())

    @contextmanager
    def within(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Run a block as a part of the trace that headers carry."""
        token = contexts.attach(self.context_of(headers))
        try:
            yield
        finally:
            contexts.detach(token)

    @staticmethod
    def trace_id() -> str | None:
        """Return the id of the current trace, 32 hexadecimal digits."""
        current = trace.get_current_span().get_span_context()
        return f"{current.trace_id:032x}" if current.is_valid else None

    @staticmethod
    def context_in_thread(fallback: Any) -> Any:
        """Return this thread's context if it has a span, else the given one: not every thread inherits a context."""
        here = contexts.get_current()
        return here if trace.get_current_span(here).get_span_context().is_valid else fallback

    @staticmethod
    def current_context() -> contexts.Context:
        """Return this thread's context."""
        return contexts.get_current()

    def renew(self) -> None:
        """Begin anew in a forked child."""
        if self.export is not None:
            self.export.renew()

    def close(self, timeout_seconds: float) -> None:
        """Export what waits, so long at most."""
        if self._own is not None:
            closing = threading.Thread(target=self._own.shutdown, name="dspyq-tracing", daemon=True)
            closing.start()  # its own limit is not kept while an export hangs
            closing.join(timeout_seconds)
        if self.export is not None:
            self.export.speak()

    def _provider(self) -> TracerProvider:
        configured = trace.get_tracer_provider()
        endpoint = self._settings.tracing.endpoint
        if endpoint is None or not isinstance(configured, trace.ProxyTracerProvider):
            return configured
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as below
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - a process with a provider needs no exporter
        from opentelemetry.sdk.trace import TracerProvider as OwnTracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415 - as above

        service_name = self._settings.tracing.service_name or self._settings.logging.service_name
        self._own = OwnTracerProvider(
            sampler=ParentBasedTraceIdRatio(self._settings.tracing.sample_ratio),
            resource=Resource.create({"service.name": service_name}),
            shutdown_on_exit=False,  # would wait half a minute for an endpoint that does not answer
        )
        url = endpoint if endpoint.rstrip("/").count("/") > 2 else endpoint.rstrip("/") + _TRACES_PATH  # noqa: PLR2004 - scheme://host/path
        self.export = Export(OTLPSpanExporter(endpoint=url, timeout=_EXPORT_TIMEOUT_SECONDS), url)
        processor = BatchSpanProcessor(self.export, _QUEUE_SPANS)  # type: ignore[arg-type]  # as a SpanExporter is
        processor.on_end = self.export.counting(processor.on_end)  # type: ignore[assignment, method-assign]  # it drops silently
        self._own.add_span_processor(processor)
        return self._own  # type: ignore[no-any-return]  # held as Any: its type is not imported where it is not used


class Export:
    """Exporter of spans to their endpoint; it counts and logs spans that are lost.

    Args:
        exporter: OpenTelemetry's own.
        url: Where it goes.

    Attributes:
        lost_spans: How many were lost.
        count_lost: Callback for each loss.
    """

    def __init__(self, exporter: Any, url: str) -> None:
        self._exporter = exporter
        self._url = scrub(url)
        self._said_at = -_SPEAK_SECONDS
        self._said = 0
        self._waiting = 0
        self._counting = threading.Lock()
        self.lost_spans = 0
        self.count_lost: Callable[[int], None] = lambda _: None

    def counting(self, on_end: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a wrapper of the queue's ``on_end`` that counts spans dropped for lack of room."""

        def counted(span: Any) -> None:
            if span.context and span.context.trace_flags.sampled:
                with self._counting:
                    is_full = self._waiting >= _QUEUE_SPANS
                    self._waiting += not is_full
                if is_full:
                    self._lose(1)
            on_end(span)

        return counted

    def export(self, spans: Sequence[Any]) -> Any:
        """Export spans; OpenTelemetry calls this from its thread."""
        taken = 0
        with self._counting:
            self._waiting = max(0, self._waiting - len(spans))
        try:
            result = self._exporter.export(spans)
            taken = len(spans) if result.name == "SUCCESS" else 0
            return result
        finally:
            if not taken:
                self._lose(len(spans))
                if time.monotonic() >= self._said_at + _SPEAK_SECONDS:
                    self.speak()

    def speak(self) -> None:
        """Log what was lost since the last time."""
        lost, self._said = self.lost_spans - self._said, self.lost_spans
        if lost:
            self._said_at = time.monotonic()
            logger.warning(Event("spans_lost", spans=lost, endpoint=self._url, see="tracing.endpoint"))

    def _lose(self, spans: int) -> None:
        with self._counting:
            self.lost_spans += spans
        self.count_lost(spans)

    def renew(self) -> None:
        """Begin anew in a forked child, whose queue is empty."""
        self._waiting, self._counting = 0, threading.Lock()

    def shutdown(self) -> None:
        """Close it."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return at once: it keeps nothing."""
        del timeout_millis
        return True


def _stated(attributes: Attributes) -> dict[str, Any]:
    scrub = process_secrets().scrub_line
    return {
        name: scrub(value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None
    }
