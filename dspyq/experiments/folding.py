"""Folding of days of judgements that are complete, so that what is read does not grow with the experiment's length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dspyq.core.days import day_at
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.sums_reader import MOST_UNFOLDED_DAYS, last_mature_day
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.scripts import load_script
from dspyq.store.spines import each_spine


def fold_mature_days(state: ExperimentState, table: Mapping[str, Any], *, folded_day: int, today: int) -> int:
    """Fold what is complete, and return the last day that is; in days since 1970.

    Args:
        state: The experiment.
        table: Its frozen table.
        folded_day: The last day that was folded; 0 for none.
        today: Days since 1970, UTC.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    last = last_mature_day(table, today)
    if not table["feedback"] or last <= folded_day:
        return folded_day
    started = day_at(state.started_at)
    # A judgement that came as its day was folded has made the day's array anew, so the latest days are folded again.
    first = max(started, min(folded_day + 1, last - MOST_UNFOLDED_DAYS) if folded_day else started)
    with redis_errors("fold the experiment's judgements"):
        for _ in each_spine():
            fold = load_script(jobs_client(), "dspyq.experiments", "fold")
            for day in range(first, last + 1):
                for arm in state.arms:
                    fold(program=state.program, epoch=state.epoch, arrays=list(_arrays(table, arm, day)))
    return last


def _arrays(table: Mapping[str, Any], arm: str, day: int) -> Iterator[str]:
    for array in ("exposed", *(f"feedback:{name}" for name in table["feedback"])):
        for side in ("u", "q"):
            yield f"{arm}:{array}:{day}:{side}"
            yield f"{arm}:{array}:mature:{side}"
