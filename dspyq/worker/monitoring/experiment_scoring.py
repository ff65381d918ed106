"""Scores of answers for experiments: by the frozen plan's ranges, and of answers that other workers left."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator, Mapping
from typing import Any

import redis
from kombu.exceptions import OperationalError

from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.errors import ExperimentRefused, RedisUnavailable
from dspyq.experiments.administration import read_plan
from dspyq.experiments.scores import ExperimentScores, NoScore, part_of_range
from dspyq.experiments.shadows import variant_of
from dspyq.store.clients import jobs_client
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.shadowing import Shadowing

logger = logging.getLogger("dspyq.scoring")

_LOOK_SECONDS = 5.0
_MOST_AT_ONCE = 50


class ExperimentScoring:
    """Scores of the programs that are served here.

    Args:
        settings: The configuration.
        queues: The queues that are served.
        look_seconds: How often Redis is asked for answers that other workers left.
    """

    def __init__(self, settings: Settings, queues: Container[str], look_seconds: float = _LOOK_SECONDS) -> None:
        self._programs = {
            program.name: program
            for program in settings.programs.values()
            if program.experiment and program.experiment.scores and _serves_any(program, queues)
        }
        self._scores = ExperimentScores(jobs_client()) if self._programs else None
        self._look_seconds = look_seconds
        self._look_at = time.monotonic() + look_seconds
        self._told: set[tuple[str, str]] = set()
        self._shadows = Shadowing(settings) if self._programs else None

    @property
    def seconds_to_look(self) -> float | None:
        """Return the seconds until answers that others left are to be taken; None if no experiment has scores."""
        return max(0.0, self._look_at - time.monotonic()) if self._programs else None

    def take(self, room: int) -> Iterator[Answered]:
        """Yield answers that others left, at most so many, if it is time to look for them."""
        if self._scores is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._look_seconds
        try:
            for program in self._programs.values():
                yield from self._take(self._scores, program, min(room, _MOST_AT_ONCE))
        except redis.RedisError as error:
            tolerate("experiment_scores", error)

    def _take(self, scores: ExperimentScores, program: Program, most: int) -> Iterator[Answered]:
        for taken in scores.take(program.name, most) if most > 0 else ():
            variant = program.variants.get(variant_of(taken.arm))
            if variant is None:
                continue  # for a worker with its configuration
            if taken.inputs is None:
                self._add(program, taken.task_id, None)
                continue
            served = program.served[variant.name]
            yield Answered(served, variant, taken.inputs, taken.outputs, taken.task_id, time.monotonic())

    def add(self, answered: Answered, found: Mapping[str, float | None]) -> None:
        """Count an answer's scores in its experiment.

        Args:
            answered: The answer.
            found: The number of each scorer, by import path; None of one that failed.
        """
        self._add(answered.program, answered.task_id, found, answered)

    def _add(
        self,
        program: Program,
        task_id: str,
        found: Mapping[str, float | None] | None,
        answered: Answered | None = None,
    ) -> None:
        if self._scores is None:
            return
        try:
            plan = read_plan(program.name)  # its ranges, whatever the file states by now
            spans = plan.table["scores"] if plan else {}
            scores = {name: self._score(program, name, span, found) for name, span in spans.items()}
            if answered is not None and plan is not None and self._shadows is not None:
                self._shadows.ask(answered, plan.table, scores)
            self._scores.add(program.name, task_id, scores)
        except (redis.RedisError, OperationalError, RedisUnavailable, ExperimentRefused) as error:  # it is taken again
            tolerate("experiment_scores", error)

    def _score(
        self, program: Program, name: str, span: Mapping[str, Any], found: Mapping[str, float | None] | None
    ) -> float | NoScore:
        if found is None:
            return "unreadable"
        if span["scorer"] not in found:
            return "no_scorer"
        score = found[span["scorer"]]
        if score is None:
            return "failed"
        part = part_of_range(score, span)
        if part == "out_of_range" and (program.name, name) not in self._told:
            self._told.add((program.name, name))
            setting = f"programs.{program.name}.experiment.scores.{name}"
            logger.warning(Event("score_out_of_range", program=program.name, score=name, advice=f"widen {setting}"))
        return part


def _serves_any(program: Program, queues: Container[str]) -> bool:
    return any(variant.queue in queues for variant in program.variants.values())
