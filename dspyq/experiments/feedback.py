"""Feedback: callers' judgements of answers, each counted once for the exposure that its token names."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

from dspyq.core.days import SECONDS_OF_DAY, day_at
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import read_number
from dspyq.errors import FeedbackRefused
from dspyq.experiments.administration import read_plan, read_state
from dspyq.experiments.sums_reader import longest_window_days
from dspyq.experiments.token import ForgedToken, read_token
from dspyq.store.clients import jobs_client, redis_errors
from dspyq.store.keys import SECONDS_OF_BOOKS, experiment_refused_key
from dspyq.store.scripts import load_script, read_hash
from dspyq.store.spines import each_spine, on_spine

FeedbackOutcome = Literal["new", "same", "replaced", "kept"]
_RefusalReason = Literal["closed", "unknown", "range", "late"]

_PARTS = 1_000_000
#: How long the table of a running experiment is trusted in a process.
_TABLE_IS_FRESH_SECONDS = 10.0


def give_feedback(token: str, name: str, value: float) -> FeedbackOutcome:
    """Count a judgement of an answer.

    Args:
        token: ``metadata.exposure`` of the answer.
        name: One of the experiment's ``feedback`` tables.
        value: The judgement, within its range.

    Returns:
        ``new``; ``same`` if it was given before; ``replaced`` or ``kept`` if another was, as the table states.

    Raises:
        FeedbackRefused: If it is not counted; the text states the reason.
        RedisUnavailable: If Redis does not answer.
    """
    try:
        given_for = read_token(token)
    except ForgedToken as error:
        raise FeedbackRefused(
            f"this feedback is of no exposure: {error}; pass metadata.exposure of the answer"
        ) from None
    exposure = given_for.exposure
    table = _table(exposure.program, exposure.epoch)
    if table is None:
        raise _refused(exposure.program, "closed", "the experiment it was given for is no more")
    judged = table["feedback"].get(name) if isinstance(name, str) else None
    if judged is None:
        known = ", ".join(table["feedback"]) or "none"
        raise _refused(exposure.program, "unknown", f"the experiment has no feedback of that name; it has {known}")
    part = _part(exposure.program, name, value, judged)
    window_days = int(judged["window_days"])
    if exposure.day + window_days < day_at(time.time()):
        raise _refused(exposure.program, "late", f"{name} is taken for {window_days} days after the answer")
    with redis_errors("take the feedback"), on_spine(given_for.nonce):
        outcome = load_script(jobs_client(), "dspyq.experiments", "feedback")(
            program=exposure.program,
            exposure=exposure.stated(),
            name=name,
            question=given_for.question,
            said=given_for.nonce,
            value=part,
            window_seconds=(longest_window_days(table) + 2) * SECONDS_OF_DAY,
            replaces="1" if judged["replace"] else "",
        )
    if outcome == b"closed":
        raise _refused(exposure.program, "closed", "the experiment it was given for is no more")
    return cast("FeedbackOutcome", outcome.decode())


def _part(program: str, name: str, value: float, judged: Mapping[str, Any]) -> int:
    low, high = float(judged["low"]), float(judged["high"])
    if not isinstance(value, int | float) or not low <= value <= high:
        raise _refused(program, "range", f"{name} is a number from {low:g} to {high:g}")
    return round((value - low) / (high - low) * _PARTS)


def _refused(program: str, reason: _RefusalReason, why: str) -> FeedbackRefused:
    """Count a refusal; return its error."""
    with redis_errors("count the refused feedback"), on_spine(program):
        key = experiment_refused_key(program)
        pipeline = jobs_client().pipeline(transaction=False)
        pipeline.hincrby(key, reason, 1)
        pipeline.expire(key, SECONDS_OF_BOOKS)
        pipeline.execute()
    refused = FeedbackRefused(f"this feedback is not counted: {why}")
    refused.is_late = reason in {"closed", "late"}
    return refused


def read_refusals(program: str) -> dict[str, int]:
    """Return what was not counted of a program's experiments, by reason: refused feedback, and damaged keys.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    found: Counter[bytes] = Counter()
    with redis_errors("read the refused feedback"):
        for _ in each_spine():
            stored = read_hash(jobs_client().hgetall(experiment_refused_key(program)))
            found.update({reason: int(read_number(number)) for reason, number in stored.items()})
    return {reason.decode("utf-8", "replace"): number for reason, number in sorted(found.items())}


class _KeptTable(NamedTuple):
    read_at: float
    table: Mapping[str, Any] | None


@per_runtime
def _tables() -> dict[tuple[str, str], _KeptTable]:
    return {}


def _table(program: str, epoch: str) -> Mapping[str, Any] | None:
    """Return the frozen table of an experiment; None where another one has taken its place."""
    tables, now = _tables(), time.monotonic()
    kept = tables.get((program, epoch))
    if kept is None or now - kept.read_at > _TABLE_IS_FRESH_SECONDS:
        state, plan = read_state(program), read_plan(program)
        is_it = state is not None and plan is not None and state.epoch == epoch
        tables.clear()  # there is hardly ever more than one
        kept = tables[program, epoch] = _KeptTable(now, plan.table if is_it and plan else None)
    return kept.table
