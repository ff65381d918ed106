"""Judgements by the day of their exposure: how many answers of a day were judged, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from dspyq.core.days import day_at
from dspyq.experiments.packed_sums import read_arrays
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.sums import unpack_counters
from dspyq.store.clients import redis_errors

#: Days are shown so far back.
MOST_DAYS = 120
_MILLIONTHS = 1e6
#: Counters of a bucket by question: rows, sum and squares of judgements; rows of exposures.
_JUDGED_FIELDS, _EXPOSED_FIELDS = 3, 1


class DayOfArm(NamedTuple):
    """Judgements of an arm's exposures of one day.

    Attributes:
        exposed: Calls of that day.
        judged: Those of them that were judged.
        mean: The mean judgement, in its own range; None where none was judged.
    """

    exposed: int
    judged: int
    mean: float | None


class FeedbackDay(NamedTuple):
    """Judgements of one day's exposures.

    Attributes:
        day: Days since 1970, UTC; None for all older days, which are kept together.
        is_mature: Whether its window is over, so that no judgement is to come.
        arms: By arm.
    """

    day: int | None
    is_mature: bool
    arms: dict[str, DayOfArm]


def read_feedback_days(
    state: ExperimentState, table: Mapping[str, Any], *, today: int
) -> dict[str, tuple[FeedbackDay, ...]]:
    """Return the judgements of each name, the oldest day first; empty days are left out.

    Args:
        state: The experiment.
        table: Its frozen table.
        today: Days since 1970, UTC.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    if not table["feedback"]:
        return {}
    first = max(day_at(state.started_at), today - MOST_DAYS)
    found: dict[str, list[FeedbackDay]] = {name: [] for name in table["feedback"]}
    for day in (None, *range(first, today + 1)):  # a day at a time: each is some 100 KB
        exposed, judged = _read_day(state, table, "mature" if day is None else str(day))
        if not any(exposed.values()) and not any(rows for rows, _ in judged.values()):
            continue
        for name, span in table["feedback"].items():
            is_mature = day is None or day + int(span["window_days"]) < today
            arms = {arm: _of_arm(exposed[arm], judged[name, arm], span) for arm in state.arms}
            found[name].append(FeedbackDay(day, is_mature, arms))
    return {name: tuple(days) for name, days in found.items()}


def _read_day(
    state: ExperimentState, table: Mapping[str, Any], day: str
) -> tuple[dict[str, int], dict[tuple[str, str], tuple[int, int]]]:
    """Return the exposures by arm, and the number and the sum of judgements by name and arm."""
    pairs = [(name, arm) for name in table["feedback"] for arm in state.arms]
    names = [f"{arm}:exposed:{day}:q" for arm in state.arms]
    names += [f"{arm}:feedback:{name}:{day}:q" for name, arm in pairs]
    with redis_errors("read the experiment's judgements"):
        stored = read_arrays(state, names)
    exposed = {
        arm: sum(unpack_counters(packed or b"", _EXPOSED_FIELDS)[0])
        for arm, packed in zip(state.arms, stored, strict=False)
    }
    judged = {}
    for pair, packed in zip(pairs, stored[len(state.arms) :], strict=True):
        rows, total, _ = unpack_counters(packed or b"", _JUDGED_FIELDS)
        judged[pair] = sum(rows), sum(total)
    return exposed, judged


def _of_arm(exposed: int, judged: tuple[int, int], span: Mapping[str, Any]) -> DayOfArm:
    rows, total = judged
    low, high = float(span["low"]), float(span["high"])
    return DayOfArm(exposed, rows, low + (high - low) * total / _MILLIONTHS / rows if rows else None)
