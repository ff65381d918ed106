"""Spans of a run and of each attempt at a model call, by OpenTelemetry's conventions and without content."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery.app.task import Context

from dspyq.config.models import Model
from dspyq.core.events import Event
from dspyq.delivery.task_run import delivery_of
from dspyq.guards.call import CallReply
from dspyq.prediction.header import Header
from dspyq.tracing.propagation import TRACE_HEADERS
from dspyq.tracing.tracing import process_tracing

if TYPE_CHECKING:
    from dspyq.tracing.spans import Tracing

#: The conventions' names of providers where DSPy's differ; DSPy's include the API, as in ``openai-chat``.
_PROVIDERS = {"azure": "azure.ai.openai", "bedrock": "aws.bedrock", "gemini": "gcp.gemini", "xai": "x_ai"}
_INTERFACE = re.compile(r"-(?:chat|responses)$")
#: Fields of a prediction's log entry that its span has too.
_OUTCOME = {
    "model": "dspyq.model",
    "cache_level": "dspyq.cache.level",
    "cost_usd": "dspyq.cost_usd",
    "tokens": "dspyq.tokens",
    "status": "dspyq.status",
}


class ProcessSpan:
    """The span of one run, begun and ended in its thread.

    Args:
        tracing: What makes it.
        context: The task's request.
        header: What was asked.
    """

    def __init__(self, tracing: Tracing, context: Context, header: Header) -> None:
        self._tracing = tracing
        carried = {name: context.get(name) for name in TRACE_HEADERS if context.get(name)}
        attributes = {
            "messaging.system": "celery",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": header.queue,
            "messaging.message.id": context.id,
            "messaging.message.conversation_id": header.request_id,
            "dspyq.program": header.program,
            "dspyq.variant": header.variant,
            "dspyq.run": delivery_of(context).run_count,
        }
        parent = tracing.context_of(carried)
        self._span, self._token = tracing.begin(f"process {header.queue}", "consumer", attributes, parent)

    def note(self, event: Event) -> None:
        """Add an event."""
        attributes = {f"dspyq.{name}": value for name, value in event.fields.items()}
        self._tracing.note(f"dspyq.{event.name}", attributes, self._span)

    def finish(self, entry: Event) -> None:
        """Add the outcome from the prediction's log entry."""
        self._tracing.add(self._span, {name: entry.fields[field] for field, name in _OUTCOME.items()})
        if entry.fields["error"]:
            self._tracing.fail(self._span, entry.fields["error"])

    def end(self) -> None:
        """End it."""
        self._tracing.end(self._span, self._token)


def begin_process(context: Context, header: Header) -> ProcessSpan | None:
    """Begin a run's span, where tracing is on."""
    tracing = process_tracing()
    return ProcessSpan(tracing, context, header) if tracing else None


def run_context() -> Any:
    """Return the trace context for model calls of this run; not every thread that makes them inherits it."""
    tracing = process_tracing()
    return tracing.current_context() if tracing else None


class ChatSpans:
    """The spans of one model call's attempts.

    Args:
        tracing: What makes them.
        model: The model's table.
        provider: DSPy's name of its provider.
        requested: Attributes of the request by the conventions, without content.
        run: As of ``run_context``.
    """

    def __init__(self, tracing: Tracing, model: Model, provider: str, requested: dict[str, Any], run: Any) -> None:
        self._tracing = tracing
        self._run = run
        self._attempts = 0
        self._free_since = time.monotonic()
        address = urlsplit(model.api_base or "")
        served_by = _INTERFACE.sub("", provider)
        self._name = f"chat {requested['gen_ai.request.model']}"
        self._attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(served_by, served_by),
            "server.address": address.hostname,
            "server.port": address.port,
            "dspyq.model": model.name,
            **requested,
        }

    def attempt(self, make: Callable[[], CallReply], code_of: Callable[[BaseException], str]) -> CallReply:
        """Make an attempt in a span of its own.

        Args:
            make: Function that makes it.
            code_of: Function that names its exception.
        """
        self._attempts += 1
        attributes = {
            **self._attributes,
            "dspyq.attempt": self._attempts,
            "dspyq.wait_seconds": time.monotonic() - self._free_since,  # for its guards and its turn
        }
        parent = self._tracing.context_in_thread(self._run)
        try:
            with self._tracing.span(self._name, "client", attributes, parent, code_of) as span:
                reply = make()
                self._tracing.add(span, _answered(reply))
                return reply
        finally:
            self._free_since = time.monotonic()


def _answered(reply: CallReply) -> dict[str, Any]:
    response = reply.response
    return {
        "gen_ai.response.id": response.id,
        "gen_ai.response.model": response.model,
        "gen_ai.response.finish_reasons": [str(response.finish_reason)],
        "gen_ai.usage.input_tokens": reply.prompt_tokens,
        "gen_ai.usage.output_tokens": reply.completion_tokens,
        "dspyq.cost_usd": reply.cost_usd,
    }
