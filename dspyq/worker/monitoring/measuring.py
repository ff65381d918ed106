"""Stands around the task's body and counts what became of each prediction; a few microseconds each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore

from dspyq.celery_app.application import HEADER
from dspyq.client.predict import Body
from dspyq.config.models import Program, Variant
from dspyq.config.settings import Settings
from dspyq.guards import metrics
from dspyq.guards.ledger import CallRecord, Ledger
from dspyq.worker.monitoring.scoring import Scoring

#: The characters of its inputs up to which a question is short, and up to which medium; beyond, it is long.
_SHORT_CHARACTERS, _MEDIUM_CHARACTERS = 200, 2000


class Measured:
    """A body whose predictions are counted.

    Args:
        body: What answers.
        settings: The configuration.
        scoring: What answers are given to, to be scored.
    """

    def __init__(self, body: Body, settings: Settings, scoring: Scoring) -> None:
        self._body = body
        self._scoring = scoring
        self._meters = {
            (program.name, variant.name): _Meter(program, variant)
            for program in settings.programs.values()
            for variant in program.variants.values()
        }

    def __call__(self, task: Task, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the task's question."""
        began_at = time.monotonic()
        metrics.ACTIVE_REQUESTS.inc()
        try:
            answer = self._body(task, inputs)
        except Ignore:  # it goes back to its queue, or is another run's: it has not ended here
            raise
        except BaseException as error:
            meter = self._meter_of_job(task)
            if meter is not None:
                meter.count_error(error, time.monotonic() - began_at)
            raise
        finally:
            metrics.ACTIVE_REQUESTS.dec()
        metadata = answer["metadata"]
        meter = self._meters.get((metadata["program"], metadata["variant"]))
        if meter is None:  # answered before the configuration lost it
            return answer
        seconds = time.monotonic() - began_at
        if metadata["cached"]:
            meter.count_cached(seconds)
            return answer
        ledger: Ledger | None = getattr(task.request, "ledger", None)
        meter.count_answer(seconds, is_fallback=metadata["fallback"] is not None)
        # The overhead goes on until the answer is stored.
        provider_seconds = _provider_seconds(ledger.run_calls) if ledger else 0.0
        task.request.overhead = meter.overhead_seconds, began_at + provider_seconds
        if meter.counts_complexity:
            meter.count_complexity(inputs)
        if meter.is_scored and metadata["fallback"] is None:
            self._scoring.take(meter.program, meter.variant, inputs, answer["outputs"])
        return answer

    def _meter_of_job(self, task: Task) -> _Meter | None:
        """Whose the job is, by its header; a job that was published by name alone has none."""
        header = task.request.get(HEADER)
        return self._meters.get((header["program"], header["variant"])) if header else None


class _Meter:
    """What is counted of one variant's predictions. Its labels are looked up once."""

    def __init__(self, program: Program, variant: Variant) -> None:
        self.program, self.variant = program, variant
        self.is_scored = bool(program.scorers or program.categorize)
        self.counts_complexity = program.categorize is None
        self._model, queue = variant.model.name, variant.queue
        self._succeeded, self._fell_back, self._failed = (
            metrics.PREDICTIONS.labels(self._model, status, queue) for status in ("success", "fallback", "error")
        )
        self._computed_seconds = metrics.PREDICTION_SECONDS.labels(self._model, "false")
        self._cached_seconds = metrics.PREDICTION_SECONDS.labels(self._model, "true")
        self.overhead_seconds = metrics.OVERHEAD_SECONDS.labels(self._model)
        if self.counts_complexity:
            self._short, self._medium, self._long = (
                metrics.QUESTION_COMPLEXITY.labels(category) for category in ("short", "medium", "long")
            )

    def count_answer(self, seconds: float, *, is_fallback: bool) -> None:
        """Count an answer that was computed here."""
        (self._fell_back if is_fallback else self._succeeded).inc()
        self._computed_seconds.observe(seconds)

    def count_cached(self, seconds: float) -> None:
        """Count an answer that was there, or that another run gave."""
        self._succeeded.inc()
        self._cached_seconds.observe(seconds)

    def count_error(self, error: BaseException, seconds: float) -> None:
        """Count a prediction that failed."""
        self._failed.inc()
        self._computed_seconds.observe(seconds)
        metrics.ERRORS.labels(self._model, metrics.error_type(error)).inc()

    def count_complexity(self, inputs: Mapping[str, Any]) -> None:
        """Count a question by the length of its inputs."""
        characters = sum([len(value) if isinstance(value, str) else len(str(value)) for value in inputs.values()])
        if characters <= _SHORT_CHARACTERS:
            self._short.inc()
        elif characters <= _MEDIUM_CHARACTERS:
            self._medium.inc()
        else:
            self._long.inc()


def _provider_seconds(calls: tuple[CallRecord, ...]) -> float:
    """The seconds in which at least one call was under way: those of threads overlap."""
    if len(calls) == 1:
        return calls[0].duration_seconds
    total = covered_until = 0.0
    for call in sorted(calls, key=lambda each: each.began_at):
        ends_at = call.began_at + call.duration_seconds
        total += max(0.0, ends_at - max(call.began_at, covered_until))
        covered_until = max(covered_until, ends_at)
    return total


def _observe_overhead(task: Task, **_: Any) -> None:
    """Observe what of a prediction was not the provider's, its answer's way into Redis included."""
    noted = getattr(task.request, "overhead", None)
    if noted is not None:
        histogram, provided_until = noted
        histogram.observe(max(0.0, time.monotonic() - provided_until))


signals.task_postrun.connect(_observe_overhead, weak=False)
