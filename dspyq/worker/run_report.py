"""Observability of one run of a prediction: its log context and trace while it lasts, and its log entry at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from celery import Task, signals
from celery.app.task import Context
from prometheus_client import Histogram

from dspyq.client.prediction_log import PredictionOutcome, prediction_event
from dspyq.config.privacy import exception_type, hides_content
from dspyq.config.settings import get_settings
from dspyq.core.events import NO_CONTEXT, Event, log_context
from dspyq.delivery.task_run import task_run
from dspyq.errors import AccountRefused, BreakerOpen, BudgetExceeded, RateLimited, TenantLimitReached, Unavailable
from dspyq.guards.call_records import ProgramAnswer
from dspyq.guards.interruptions import ArmKilled, Interruption, Refusal, RetryLater
from dspyq.guards.ledger import Ledger
from dspyq.prediction.header import Header
from dspyq.programs.run_spans import ProcessSpan, begin_process

logger = logging.getLogger("dspyq.predictions")

_GUARDS: dict[type[Unavailable], str] = {
    BreakerOpen: "breaker",
    RateLimited: "rate_limit",
    AccountRefused: "rate_limit",
    BudgetExceeded: "budget",
    TenantLimitReached: "budget",
}


class RunReport:
    """Log context, span and log entry of one run, used from its thread.

    It lasts until Celery is done with the run, so it includes storing the result and sending the links.

    Args:
        context: The task's request.
        inputs: The prediction's inputs; logged only if the settings allow content.

    Attributes:
        ledger: The run's model calls, once there may be some.
        to_score: Has the answer scored, once it is stored; its argument is true if an experiment waits for its scores.
        overhead: The histogram of overhead, and the monotonic second after which time counts as overhead.
    """

    def __init__(self, context: Context, inputs: Mapping[str, Any]) -> None:
        self._began_at = time.monotonic()
        # Not the request itself, which keeps this report: in a circle both would stay until the collector finds them.
        self._task_id: str = context.id
        self._inputs = inputs
        self._header: Header | None = None
        self._span: ProcessSpan | None = None
        self.ledger: Ledger | None = None
        self.to_score: Callable[[bool], None] | None = None
        self.overhead: tuple[Histogram, float] | None = None
        task_run(context).keep(self)
        log_context.set({"task_id": self._task_id})

    def begin(self, context: Context, header: Header) -> None:
        """Add the prediction's request, program and variant to the log context, and begin its span."""
        self._header = header
        log_context.set(
            {
                "request_id": header.request_id,
                "task_id": self._task_id,
                "program": header.program,
                "variant": header.variant,
            }
        )
        self._span = begin_process(context, header)

    def answered(self, answer: Mapping[str, Any]) -> None:
        """Log an answer."""
        metadata = answer["metadata"]
        cache_level, is_fallback = metadata["cache_level"], metadata["fallback"] is not None
        outcome = PredictionOutcome(
            "fallback" if is_fallback else "success",
            duration_seconds=self._seconds if cache_level else metadata["duration_seconds"],
            cache_level=cache_level,
            tokens=0 if cache_level else metadata["usage"]["total_tokens"],
            cost_usd=metadata["cost_usd"],
        )
        self._write(logging.INFO, outcome, answer["outputs"])

    def failed(self, error: Exception) -> None:
        """Log an error returned to callers."""
        spent = ProgramAnswer(outputs={}, calls=self.ledger.calls if self.ledger else ())
        outcome = PredictionOutcome(
            "error",
            duration_seconds=self.ledger.running_seconds if self.ledger else self._seconds,
            tokens=spent.prompt_tokens + spent.completion_tokens,
            cost_usd=spent.cost_usd,
            error=exception_type(repr(error)) if hides_content() else f"{type(error).__name__}: {error}",
        )
        self._write(logging.ERROR, outcome)

    def interrupted(self, interruption: Interruption) -> None:
        """Log a refusal or a postponement."""
        if isinstance(interruption, Refusal):
            error = interruption.error
            event = Event(
                "refusal",
                guard=_GUARDS.get(type(error), "redis"),
                model=self._model,
                error=type(error).__name__,
                wait_seconds=round(interruption.wait_seconds, 3),
            )
        elif isinstance(interruption, ArmKilled):
            event = Event(
                "refusal",
                guard="experiment",
                model=self._model,
                error=type(interruption.error).__name__,
                wait_seconds=0.0,
            )
        elif isinstance(interruption, RetryLater):
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
    def _seconds(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def _model(self) -> str | None:
        if self._header is None:
            return None
        program = get_settings().programs.get(self._header.program)
        variant = program.variants.get(self._header.variant) if program else None
        return variant.model.name if variant else None

    def _write(self, level: int, outcome: PredictionOutcome, outputs: Mapping[str, Any] | None = None) -> None:
        event = prediction_event(self._header, outcome, task_id=self._task_id, model=self._model)
        if not hides_content():
            event.fields |= {"inputs": dict(self._inputs), "outputs": outputs}
        logger.log(level, event)
        if self._span:
            self._span.finish(event)


def _close(task: Task, **_: Any) -> None:
    report = task_run(task.request).find(RunReport)
    if report is not None:
        report.close()
        if report.to_score is not None:
            report.to_score(task_run(task.request).awaits_scores)


signals.task_postrun.connect(_close, weak=False)
