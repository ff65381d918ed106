"""Traffic of an experiment, counted by the scripts that count a fleet's, at any pace."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from dspyq.experiments.exposure import Exposure
from dspyq.experiments.placement import bucket_of_question, digest_of_unit, place
from dspyq.experiments.scores import ExperimentScores
from dspyq.experiments.shadows import ShadowLog, shadow_id
from dspyq.experiments.state import ExperimentState
from dspyq.store.clients import jobs_client
from dspyq.store.keys import experiment_answer_key
from dspyq.store.scripts import load_script


def bring_pairs(state: ExperimentState, arm: str, score: str, pairs: int) -> None:
    """Count so many pairs of shadow runs, as workers that score both answers do.

    The challenger scores a quarter or a half of the range more, costs $0.002 more, and takes some 0.27 s less.
    """
    client = jobs_client()
    log, scores = ShadowLog(client), ExperimentScores(client)
    for number in range(pairs):
        control_id = f"control {number}"
        exposure = f"{state.epoch} {state.control} 5 {number} 77 20000"
        answer = {"exposure": exposure, "cost": 1_000_000, "time": 500}
        client.hset(experiment_answer_key(control_id), mapping=answer)
        log.note(state.program, control_id, arm, {score: 0.5}, is_refused=False)
        task_id = shadow_id(control_id, arm)
        client.hset(experiment_answer_key(task_id), mapping={"cost": 3_000_000 + number, "time": 200 + number})
        scores.add(state.program, task_id, {score: 0.75 + number % 2 / 4})


@dataclass
class Traffic:
    """Calls of many users.

    Attributes:
        state: The experiment.
        failing: The share of calls that fail, by arm.
        seed: Of the random numbers.
        users: Users, each of whom calls as often as the others.
        questions: Different questions.
    """

    state: ExperimentState
    failing: dict[str, float]
    seed: int = 1
    users: int = 20_000
    questions: int = 20_000
    _draw: random.Random = field(init=False)

    def __post_init__(self) -> None:
        """Begin the random numbers."""
        self._draw = random.Random(self.seed)  # noqa: S311 - a simulation, no secret

    def bring(self, calls: int, day: int = 20_000) -> None:
        """Count so many calls, of enrolled users and others."""
        rows: Counter[Exposure] = Counter()
        failed: Counter[Exposure] = Counter()
        for _ in range(calls):
            unit, question = f"user {self._draw.randrange(self.users)}", self._draw.randrange(self.questions)
            placed = place(self.state.placing, unit)
            has_failed = self._draw.random()
            if placed is None or not placed.is_counted:
                continue
            exposure = Exposure(
                self.state.program,
                self.state.epoch,
                placed.variant,
                placed.bucket,
                bucket_of_question(self.state.salt, b"%d" % question),
                digest_of_unit(self.state.salt, unit).cell,
                day,
            )
            rows[exposure] += 1
            failed[exposure] += has_failed < self.failing[placed.variant]
        flat = [value for each, calls in rows.items() for value in (each.stated(), calls, failed[each])]
        load_script(jobs_client(), "tests.support", "ended_calls")(program=self.state.program, rows=flat)
