"""Propagation of the caller's request id and trace context through messages."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from dspyq.core.events import log_context
from dspyq.tracing.tracing import process_tracing

#: As W3C's Trace Context and the message's headers name them.
TRACE_HEADERS = ("traceparent", "tracestate")
_REQUEST_ID_HEADER = "x-request-id"
_TRACE_ID_DIGITS = 32
_UNTRACED: Mapping[str, str] = {}

_carried: ContextVar[Mapping[str, str]] = ContextVar("dspyq_trace_headers", default=_UNTRACED)
_NO_SPAN: AbstractContextManager[None] = nullcontext()


@contextmanager
def request_context(
    headers: Mapping[str, str] | None = None, *, request_id: str | None = None, traceparent: str | None = None
) -> Iterator[None]:
    """Attribute every prediction in the block to one request.

    Args:
        headers: The request's HTTP headers; only ``traceparent``, ``tracestate`` and ``X-Request-ID`` are used.
        request_id: The request's id; by default the header's, or the id of the trace.
        traceparent: The request's trace context, in place of the header's.
    """
    given = {name.lower(): value for name, value in (headers or {}).items()}
    carried = {name: given[name] for name in TRACE_HEADERS if name in given}
    if traceparent is not None:
        carried["traceparent"] = traceparent
    asked_id = request_id or given.get(_REQUEST_ID_HEADER) or _trace_id(carried.get("traceparent", ""))
    context = log_context.set({**log_context.get(), "request_id": asked_id} if asked_id else log_context.get())
    trace = _carried.set(carried or _carried.get())
    tracing = process_tracing() if carried else None
    try:
        with tracing.within(carried) if tracing else nullcontext():
            yield
    finally:
        _carried.reset(trace)
        log_context.reset(context)


def current_request_id() -> str | None:
    """Return the id of the request that the running code works for: ours, structlog's, or that of its trace."""
    if request_id := log_context.get().get("request_id"):
        return str(request_id)
    # A caller may bind it there; a process without structlog need not load it.
    if "structlog" in sys.modules:
        bound = sys.modules["structlog"].contextvars.get_contextvars()
        if request_id := bound.get("request_id"):
            return str(request_id)
    tracing = process_tracing()
    return tracing.trace_id() if tracing else None


def trace_headers() -> Mapping[str, str]:
    """Return the headers that carry the current trace in a message; empty without a trace."""
    tracing = process_tracing()
    return tracing.headers() if tracing else _carried.get()


def publishing(queue: str, *, request_id: str | None = None, task_id: str | None = None, count: int = 1) -> Any:
    """Run a block that sends messages in a span; within it ``trace_headers()`` returns their headers.

    Args:
        queue: The queue, or the program where messages go to several.
        request_id: The request, where there is one.
        task_id: The task, where there is one.
        count: How many messages are sent.
    """
    tracing = process_tracing()
    if tracing is None:
        return _NO_SPAN
    attributes = {
        "messaging.system": "celery",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": queue,
        "messaging.message.id": task_id,
        "messaging.message.conversation_id": request_id,
        "messaging.batch.message_count": count if count > 1 else None,
    }
    return tracing.span(f"publish {queue}", "producer", attributes)


def note_shared(cache_level: str, task_id: str) -> None:
    """Add an event to the caller's span if another run answers: no message is sent, so no span of ours exists."""
    tracing = process_tracing()
    if tracing is not None:
        tracing.note("dspyq.cached", {"dspyq.cache.level": cache_level, "messaging.message.id": task_id})


def _trace_id(traceparent: str) -> str | None:
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == _TRACE_ID_DIGITS else None  # noqa: PLR2004 - version-trace-span-flags
