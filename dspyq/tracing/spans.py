"""The spans themselves: the one module that imports OpenTelemetry, when ``dspyq.tracing.tracing`` first needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dspyq.config.settings import Settings

Attributes = Mapping[str, Any]
Kind = Literal["producer", "consumer", "client"]

_TRACES_PATH = "/v1/traces"
_EXPORT_TIMEOUT_SECONDS = 10.0


class Tracing:
    """Makes spans, and carries them from one process to the next.

    A tracer provider that the process has configured gets the spans; otherwise one of our own does, with an exporter
    to ``tracing.endpoint``. Exporting is a thread's of its own with a bounded queue: it keeps nobody waiting.

    Args:
        settings: The configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._own: Any = None
        self._carrier = TraceContextTextMapPropagator()
        self._tracer = self._provider().get_tracer("dspyq")

    def become_global(self) -> None:
        """Let the process's other instrumentation record to the same place, where it has none configured."""
        if self._own is not None:
            trace.set_tracer_provider(self._own)

    @contextmanager
    def span(
        self,
        name: str,
        kind: Kind,
        attributes: Attributes,
        parent: Any = None,
        code_of: Callable[[BaseException], str] = lambda error: type(error).__name__,
    ) -> Iterator[Span]:
        """Run a block in a span of its own.

        Args:
            name: The span's name.
            kind: Its kind.
            attributes: What is known of it at its start; None is left out.
            parent: The context that it belongs to; the current one where left out.
            code_of: Names what the block raises.
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

    def begin(self, name: str, kind: Kind, attributes: Attributes, parent: Any) -> tuple[Span, object]:
        """Begin a span that does not end with a block; return it, and what ``end`` takes."""
        span = self._tracer.start_span(
            name, context=parent, kind=SpanKind[kind.upper()], attributes=_stated(attributes)
        )
        return span, contexts.attach(trace.set_span_in_context(span, parent))

    @staticmethod
    def end(span: Span, token: Any) -> None:
        """End what ``begin`` began, in the same thread."""
        contexts.detach(token)
        span.end()

    @staticmethod
    def add(span: Span, attributes: Attributes) -> None:
        """Say more of a span."""
        span.set_attributes(_stated(attributes))

    @staticmethod
    def fail(span: Span, error_type: str) -> None:
        """Mark a span as failed."""
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR))

    @staticmethod
    def note(name: str, attributes: Attributes, span: Span | None = None) -> None:
        """Add an event to a span, or to the one that this thread is in."""
        (span or trace.get_current_span()).add_event(name, _stated(attributes))

    def headers(self) -> dict[str, str]:
        """Return what carries the current span to another process."""
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
        """Return this thread's context where it has a span, else another one: not every thread inherits it."""
        here = contexts.get_current()
        return here if trace.get_current_span(here).get_span_context().is_valid else fallback

    @staticmethod
    def current_context() -> contexts.Context:
        """Return this thread's context."""
        return contexts.get_current()

    def close(self, timeout_seconds: float) -> None:
        """Export what waits, so long at most."""
        if self._own is not None:
            closing = threading.Thread(target=self._own.shutdown, name="dspyq-tracing", daemon=True)
            closing.start()  # its own limit is not kept while an export hangs
            closing.join(timeout_seconds)

    def _provider(self) -> TracerProvider:
        configured = trace.get_tracer_provider()
        endpoint = self._settings.tracing.endpoint
        if endpoint is None or not isinstance(configured, trace.ProxyTracerProvider):
            return configured
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as below
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - whoever has a provider needs no other's
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
        exporter = OTLPSpanExporter(endpoint=url, timeout=_EXPORT_TIMEOUT_SECONDS)
        self._own.add_span_processor(BatchSpanProcessor(exporter))
        return self._own  # type: ignore[no-any-return]  # held as Any: its type is not imported where it is not used


def _stated(attributes: Attributes) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
