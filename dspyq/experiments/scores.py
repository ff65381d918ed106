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

from dspyq.store import content
from dspyq.store.scripts import load_script

#: Reasons for which a counted answer lacks a score. Scripts add ``dropped``: too many waited; ``lost``: its workers
#: ended; ``late``: its calls were forgotten.
NoScore = Literal["failed", "out_of_range", "no_scorer", "unreadable"]
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

    def add(self, program: str, task_id: str, scores: Mapping[str, float | NoScore]) -> None:
        """Add an answer's scores, as parts of their ranges, 0 to 1, or why there is none. A repetition adds nothing.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        stated = [
            each
            for name, score in scores.items()
            for each in (name, score if isinstance(score, str) else round(score * _MILLIONTHS))
        ]
        self._add(id=task_id, program=program, scores=stated)


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
