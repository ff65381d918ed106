"""What is told of one run of a prediction: its log context and trace while it lasts, and its entry at its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from celery import Task, signals
from celery.app.task import Context

from dspyq.client.prediction_log import prediction_event
from dspyq.config.privacy import exception_type, hides_content
from dspyq.config.settings import get_settings
from dspyq.core.events import NO_CONTEXT, Event, log_context
from dspyq.errors import AccountRefused, BreakerOpen, BudgetExceeded, RateLimited, Unavailable
from dspyq.guards.interruptions import Interruption, Postponement, Refusal
from dspyq.guards.ledger import Answer, Ledger
from dspyq.prediction.request import Header
from dspyq.programs.run_spans import ProcessSpan, begin_process

logger = logging.getLogger("dspyq.predictions")

_GUARDS: dict[type[Unavailable], str] = {
    BreakerOpen: "breaker",
    RateLimited: "rate_limit",
    AccountRefused: "rate_limit",
    BudgetExceeded: "budget",
}


class Report:
    """What is told of one run, from its thread.

    It lasts until Celery is done with the run: what stores its result and sends its links belongs to it too.

    Args:
        context: The task's request.
        inputs: The prediction's inputs; told only where content may be shown.
    """

    def __init__(self, context: Context, inputs: Mapping[str, Any]) -> None:
        self._began_at = time.monotonic()
        self._context = context
        self._inputs = inputs
        self._header: Header | None = None
        self._span: ProcessSpan | None = None
        context.dspyq_report = self
        log_context.set({"task_id": context.id})

    def begin(self, header: Header) -> None:
        """Say of everything from here on what was asked."""
        self._header = header
        log_context.set(
            {
                "request_id": header.request_id,
                "task_id": self._context.id,
                "program": header.program,
                "variant": header.variant,
            }
        )
        self._span = begin_process(self._context, header)

    def answered(self, answer: Mapping[str, Any]) -> None:
        """Tell of an answer."""
        metadata = answer["metadata"]
        cache_level, is_fallback = metadata["cache_level"], metadata["fallback"] is not None
        self._tell(
            logging.INFO,
            "fallback" if is_fallback else "success",
            cache_level=cache_level,
            duration_seconds=self._seconds if cache_level else metadata["duration_seconds"],
            tokens=0 if cache_level else metadata["usage"]["total_tokens"],
            cost_usd=metadata["cost_usd"],
            outputs=answer["outputs"],
        )

    def failed(self, error: Exception) -> None:
        """Tell of an error that the callers get."""
        spent = Answer(outputs={}, calls=self._ledger.calls if self._ledger else ())
        self._tell(
            logging.ERROR,
            "error",
            duration_seconds=self._ledger.running_seconds if self._ledger else self._seconds,
            tokens=spent.prompt_tokens + spent.completion_tokens,
            cost_usd=spent.cost_usd,
            error=exception_type(repr(error)) if hides_content() else f"{type(error).__name__}: {error}",
        )

    def interrupted(self, interruption: Interruption) -> None:
        """Tell of a refusal or a postponement, whatever becomes of the job then."""
        if isinstance(interruption, Refusal):
            error = interruption.error
            event = Event(
                "refusal",
                guard=_GUARDS.get(type(error), "redis"),
                model=self._model,
                error=type(error).__name__,
                wait_seconds=round(interruption.wait_seconds, 3),
            )
        elif isinstance(interruption, Postponement):
            event = Event("postponement", model=self._model, wait_seconds=round(interruption.wait_seconds, 3))
        else:
            return
        logger.info(event)
        if self._span:
            self._span.note(event)

    def close(self) -> None:
        """End the run's context and its span."""
        log_context.set(NO_CONTEXT)
        if self._span:
            self._span.end()

    @property
    def _ledger(self) -> Ledger | None:
        """The run's model calls, once there may be some."""
        ledger: Ledger | None = getattr(self._context, "ledger", None)
        return ledger

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def _model(self) -> str | None:
        if self._header is None:
            return None
        program = get_settings().programs.get(self._header.program)
        variant = program.variants.get(self._header.variant) if program else None
        return variant.model.name if variant else None

    def _tell(self, level: int, status: str, *, outputs: Mapping[str, Any] | None = None, **fields: Any) -> None:
        event = prediction_event(self._header, task_id=self._context.id, model=self._model, status=status, **fields)
        if not hides_content():
            event.fields |= {"inputs": dict(self._inputs), "outputs": outputs}
        logger.log(level, event)
        if self._span:
            self._span.finish(event)


def _close(task: Task, **_: Any) -> None:
    report: Report | None = getattr(task.request, "dspyq_report", None)
    if report is not None:
        report.close()


signals.task_postrun.connect(_close, weak=False)
