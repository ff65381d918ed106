"""Wrapper of the task's body that counts each prediction's outcome, at a cost of a few microseconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from celery import Task, signals
from celery.exceptions import Ignore

from dspyq.client.predict import PredictBody
from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.config.variants import Variant
from dspyq.core.events import Event
from dspyq.core.names import HEADER
from dspyq.core.runtime import current
from dspyq.delivery.task_run import task_run
from dspyq.experiments.scores import dump_unscored
from dspyq.guards import metrics
from dspyq.guards.call_records import CallRecord
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.quiet import SHOWS_ALL_UP_TO
from dspyq.worker.monitoring.scoring import Scoring
from dspyq.worker.run_report import RunReport

#: The characters of its inputs up to which a question is short, and up to which medium; beyond, it is long.
_SHORT_CHARACTERS, _MEDIUM_CHARACTERS = 200, 2000

logger = logging.getLogger("dspyq.predictions")


class MeasuredBody:
    """A body whose predictions are counted.

    Args:
        body: The body to wrap.
        settings: The configuration.
        scoring: Scoring of answers.
    """

    def __init__(self, body: PredictBody, settings: Settings, scoring: Scoring) -> None:
        self._body = body
        self._scoring = scoring
        self._variants = {
            (program.name, variant.name): (program.served[variant.name], variant)
            for program in settings.programs.values()
            for variant in program.variants.values()
        }
        self._meters: dict[tuple[str, str], _Meter] = {}
        if len(self._variants) <= SHOWS_ALL_UP_TO:
            self._meters = {name: _Meter(*variant) for name, variant in self._variants.items()}

    def __call__(self, task: Task, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Answer the task's question."""
        began_at = time.monotonic()
        metrics.ACTIVE_REQUESTS.inc()
        try:
            answer = self._body(task, inputs)
        except Ignore:  # back in its queue, or another run's: it has not ended here
            raise
        except BaseException as error:
            meter = self._meter_of_job(task)
            if meter is not None:
                meter.count_error(error, time.monotonic() - began_at)
            raise
        finally:
            metrics.ACTIVE_REQUESTS.dec()
        metadata = answer["metadata"]
        meter = self._meter(metadata["program"], metadata["variant"])
        if meter is None:  # answered before it was removed from the configuration
            return answer
        seconds = time.monotonic() - began_at
        if metadata["cached"]:
            meter.count_cached(seconds)
            return answer
        report = task_run(task.request).find(RunReport)
        meter.count_answer(seconds, is_fallback=metadata["fallback"] is not None)
        if metadata.get("is_truncated"):
            meter.count_truncated()
        if report is not None:  # the overhead lasts until the answer is stored
            provider_seconds = _provider_seconds(report.ledger.run_calls) if report.ledger else 0.0
            report.overhead = meter.overhead_seconds, began_at + provider_seconds
        if meter.counts_complexity:
            meter.count_complexity(inputs)
        if meter.is_scored and metadata["fallback"] is None and report is not None:
            answered = Answered(meter.program, meter.variant, inputs, answer["outputs"], runtime=current())
            self._have_scored(meter, task, report, answered)
        return answer

    def _have_scored(self, meter: _Meter, task: Task, report: RunReport, answered: Answered) -> None:
        """Have an answer scored once it is stored: then an experiment can count its scores."""
        if meter.has_experiment_scores:
            task_run(task.request).unscored = dump_unscored(answered.inputs, answered.outputs)

        def to_score(awaits_scores: bool) -> None:  # noqa: FBT001 - called by position, once
            self._scoring.take(answered._replace(task_id=task.request.id) if awaits_scores else answered)

        report.to_score = to_score

    def _meter_of_job(self, task: Task) -> _Meter | None:
        """Return the meter of a job's variant, by its header; None for a job published by name alone, without one."""
        header = task.request.get(HEADER)
        return self._meter(header["program"], header["variant"]) if header else None

    def _meter(self, program: str, variant: str) -> _Meter | None:
        """Return a variant's meter, created on first use; None if no such variant is configured."""
        name = program, variant
        if name not in self._meters and name in self._variants:
            self._meters.setdefault(name, _Meter(*self._variants[name]))
        return self._meters.get(name)


class _Meter:
    """Counters of one variant's predictions. Labels are looked up once."""

    def __init__(self, program: Program, variant: Variant) -> None:
        self.program, self.variant = program, variant
        self.is_scored = bool(program.scorers or program.categorize)
        self.has_experiment_scores = bool(program.experiment and program.experiment.scores)
        self.counts_complexity = program.categorize is None
        self._model, queue = variant.model.name, variant.queue
        self._max_tokens = variant.model.setting("max_tokens")
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

    def count_truncated(self) -> None:
        """Count an answer that was cut off, and log it."""
        metrics.TRUNCATED_ANSWERS.labels(self._model).inc()
        logger.warning(Event("answer_truncated", model=self._model, advice=f"raise {self._max_tokens}"))

    def count_cached(self, seconds: float) -> None:
        """Count an answer from the cache or another run."""
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
    """Return the seconds with at least one call in progress: calls of different threads may overlap."""
    if len(calls) == 1:
        return calls[0].duration_seconds
    total = covered_until = 0.0
    for call in sorted(calls, key=lambda each: each.began_at):
        ends_at = call.began_at + call.duration_seconds
        total += max(0.0, ends_at - max(call.began_at, covered_until))
        covered_until = max(covered_until, ends_at)
    return total


def _observe_overhead(task: Task, **_: Any) -> None:
    """Observe the time of a prediction outside the provider, including the storing of its answer."""
    report = task_run(task.request).find(RunReport)
    if report is not None and report.overhead is not None:
        histogram, provided_until = report.overhead
        histogram.observe(max(0.0, time.monotonic() - provided_until))


signals.task_postrun.connect(_observe_overhead, weak=False)
