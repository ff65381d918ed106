"""Scores of answers in an experiment: kept for in Redis until they are there, and added once each.

The worker that computed an answer scores it. If that worker ends first, or has no time, another one takes the answer
from Redis a minute later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import orjson
import redis

from dspyq.core.runtime import per_runtime
from dspyq.experiments.placement import is_in_share
from dspyq.store import content
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import load_script

#: Reasons for which a counted answer lacks a score: ``refused`` by the judge's account, ``no_control`` where the other
#: answer of a pair is gone, and so on. Scripts add ``dropped``: too many waited; ``lost``: its workers ended; ``late``:
#: its calls were forgotten.
NoScore = Literal["failed", "refused", "out_of_range", "no_scorer", "no_control", "unreadable"]
_MILLIONTHS = 1_000_000


class UnscoredAnswer(NamedTuple):
    """An answer that waits for its scores.

    Attributes:
        task_id: The task that answered.
        arm: Its variant.
        inputs: Its inputs; None where the content cannot be read.
        outputs: Its outputs.
    """

    task_id: str
    arm: str
    inputs: dict[str, Any] | None
    outputs: dict[str, Any]


def dump_unscored(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> bytes:
    """Return an answer as it waits for its scores, before it is encoded as content."""
    return orjson.dumps([dict(inputs), dict(outputs)])


class ExperimentScores:
    """The scores of all programs' experiments.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._take, self._add = (load_script(client, "dspyq.experiments", name) for name in ("unscored", "score"))

    def take(self, program: str, most: int) -> list[UnscoredAnswer]:
        """Take answers of a program for a minute; those whose scores are not added by then are taken again.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return [_read(*taken) for taken in self._take(program=program, most=most)]

    def add(
        self, program: str, task_id: str, scores: Mapping[str, float | NoScore], *, is_complete: bool = True
    ) -> None:
        """Add an answer's scores, as parts of their ranges, 0 to 1, or why there is none. A repetition adds nothing.

        Args:
            program: The program's name.
            task_id: The task that answered.
            scores: The scores.
            is_complete: Whether no other score of it will come; else it goes on waiting for them.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        stated = [
            each
            for name, score in scores.items()
            for each in (name, score if isinstance(score, str) else round(score * _MILLIONTHS))
        ]
        self._add(id=task_id, program=program, is_complete="1" if is_complete else "", scores=stated)


def is_scored(
    program: str, table: Mapping[str, Any], name: str, span: Mapping[str, Any], canonical_inputs: bytes
) -> bool:
    """Return True if a question's answers get a score, by its share: decided alike wherever and whenever it is asked.

    Args:
        program: The program's name.
        table: The experiment's table.
        name: The score.
        span: The score's table.
        canonical_inputs: The question, as JSON with sorted keys.
    """
    share = float(span.get("share", 1.0))
    return share >= 1 or is_in_share(f"{program}/{table['name']}", f"score {name}", canonical_inputs, share)


def part_of_range(score: float, span: Mapping[str, Any]) -> float | NoScore:
    """Return a score as a part of its range, 0 to 1."""
    low, high = float(span["low"]), float(span["high"])
    if not math.isfinite(score) or not low <= score <= high:
        return "out_of_range"
    return (score - low) / (high - low)


def _read(task_id: bytes, exposure: bytes, stored: bytes) -> UnscoredAnswer:
    own_id, arm = task_id.decode(), exposure.split()[1].decode()
    try:
        inputs, outputs = orjson.loads(content.decode(content.Kind.UNSCORED, own_id, stored))
    except (ValueError, TypeError):  # no JSON, or content of another codec
        return UnscoredAnswer(own_id, arm, None, {})
    return UnscoredAnswer(own_id, arm, inputs, outputs)


@per_runtime(is_of_part=True)
def process_experiment_scores() -> ExperimentScores:
    """Return the scores on the active spine."""
    return ExperimentScores(jobs_client())
