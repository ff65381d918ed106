"""Scores of answers for experiments: by the frozen plan's ranges, and of answers that other workers left."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterator, Mapping
from typing import Any, NamedTuple

import orjson
import redis
from kombu.exceptions import OperationalError

from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.runtime import current
from dspyq.core.tolerated import tolerate
from dspyq.delivery.served_spines import process_served_spines
from dspyq.errors import ExperimentRefused, RedisUnavailable
from dspyq.experiments.administration import StartedPlan, plan_of, read_plan
from dspyq.experiments.scores import ExperimentScores, NoScore, is_scored, part_of_range, process_experiment_scores
from dspyq.experiments.shadows import variant_of
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.shadowing import Shadowing

logger = logging.getLogger("dspyq.scoring")

_LOOK_SECONDS = 5.0
_MOST_AT_ONCE = 50


class Sample(NamedTuple):
    """The part of an experiment's scores that one answer gets.

    Attributes:
        plan: The experiment's plan: the frozen one, else the file's; None where neither can be read.
        scores: The names of the scores.
        left_out: The import paths of the scorers of all others.
    """

    plan: StartedPlan | None = None
    scores: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


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
        self._look_seconds = look_seconds
        self._look_at = time.monotonic() + look_seconds
        self._plans: dict[str, StartedPlan] = {}
        self._told: set[tuple[str, str]] = set()
        self._shadows = Shadowing(settings) if self._programs else None

    @property
    def seconds_to_look(self) -> float | None:
        """Return the seconds until answers that others left are to be taken; None if no experiment has scores."""
        return max(0.0, self._look_at - time.monotonic()) if self._programs else None

    def take(self, room: int) -> Iterator[Answered]:
        """Yield answers that others left, at most so many, if it is time to look for them."""
        if not self._programs or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._look_seconds
        for _ in process_served_spines().each():
            try:
                for program in self._programs.values():
                    yield from self._take(process_experiment_scores(), program, min(room, _MOST_AT_ONCE))
            except redis.RedisError as error:
                tolerate("experiment_scores", error)

    def _take(self, scores: ExperimentScores, program: Program, most: int) -> Iterator[Answered]:
        for taken in scores.take(program.name, most) if most > 0 else ():
            variant = program.variants.get(variant_of(taken.arm))
            if variant is None:
                continue  # for a worker with its configuration
            if taken.inputs is None:
                self._give_up(scores, program, taken.task_id)
                continue
            served = program.served[variant.name]
            since = time.monotonic()
            yield Answered(served, variant, taken.inputs, taken.outputs, taken.task_id, since, current())

    def sample(self, answered: Answered) -> Sample:
        """Return the scores that an answer gets: by the frozen plan, whatever the file states by now."""
        program = self._programs.get(answered.program.name)
        if program is None:
            return Sample()
        try:
            plan = read_plan(program.name) if answered.task_id else self._plan_of_file(program)
        except (RedisUnavailable, ExperimentRefused) as error:
            tolerate("experiment_scores", error)
            plan = None
        if plan is None:
            return Sample()
        canonical, spans = orjson.dumps(answered.inputs, option=orjson.OPT_SORT_KEYS), plan.table["scores"]
        names = frozenset(
            name for name, span in spans.items() if is_scored(program.name, plan.table, name, span, canonical)
        )
        wanted = {spans[name]["scorer"] for name in names}
        return Sample(plan, names, frozenset(span["scorer"] for span in spans.values()) - wanted)

    def _plan_of_file(self, program: Program) -> StartedPlan:
        if (plan := self._plans.get(program.name)) is None:
            plan = self._plans[program.name] = plan_of(program)
        return plan

    def add(
        self,
        answered: Answered,
        sample: Sample,
        found: Mapping[str, float | NoScore],
        compared: Mapping[str, float | NoScore],
        *,
        is_complete: bool,
    ) -> None:
        """Count an answer's scores in its experiment.

        Args:
            answered: The answer.
            sample: The scores that it gets.
            found: What each scorer returned, by import path, or why it returned nothing.
            compared: What each pair scorer returned, by its name in the plan; of a shadow run.
            is_complete: Whether nothing more of it will come; else another look will be taken at it.
        """
        if not self._programs:
            return
        program, spans = answered.program, sample.plan.table["scores"] if sample.plan else {}
        scores = {
            name: self._score(program, name, spans[name], found)
            for name in sorted(sample.scores)
            if is_complete or spans[name]["scorer"] in found
        }
        scores |= compared
        try:
            if sample.plan is not None and is_complete and self._shadows is not None:
                self._shadows.ask(answered, sample.plan.table, scores)
            process_experiment_scores().add(program.name, answered.task_id, scores, is_complete=is_complete)
        except (redis.RedisError, OperationalError, RedisUnavailable, ExperimentRefused) as error:  # it is taken again
            tolerate("experiment_scores", error)

    def _give_up(self, scores: ExperimentScores, program: Program, task_id: str) -> None:
        """Count an answer that cannot be read as one without any score."""
        try:
            plan = read_plan(program.name)
        except (RedisUnavailable, ExperimentRefused) as error:  # it is taken again
            tolerate("experiment_scores", error)
            return
        missing: dict[str, float | NoScore] = dict.fromkeys(plan.table["scores"] if plan else (), "unreadable")
        scores.add(program.name, task_id, missing)

    def _score(
        self, program: Program, name: str, span: Mapping[str, Any], found: Mapping[str, float | NoScore]
    ) -> float | NoScore:
        score = found.get(span["scorer"], "no_scorer")
        if isinstance(score, str):
            return score
        part = part_of_range(score, span)
        if part == "out_of_range" and (program.name, name) not in self._told:
            self._told.add((program.name, name))
            setting = f"programs.{program.name}.experiment.scores.{name}"
            logger.warning(Event("score_out_of_range", program=program.name, score=name, advice=f"widen {setting}"))
        return part


def _serves_any(program: Program, queues: Container[str]) -> bool:
    return any(variant.queue in queues for variant in program.variants.values())
