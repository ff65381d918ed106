"""Two hundred threads on a budget that lets five call at once: the cost of their waiting, and the longest wait."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.books import BudgetWatch, dollars, find_money_faults
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage

_THREADS = 200
_AT_ONCE = 5
_LIMIT_USD = 1.0
#: So many that a call may cost nearly a fifth of the limit.
_MAX_TOKENS = 95_000
_MODEL_SECONDS = 0.25
_SETTINGS = {
    "models": {"control": {"max_tokens": _MAX_TOKENS, "timeout_seconds": 60}},
    "budget": {"daily_usd": _LIMIT_USD},
}
_ROUND_TRIPS_PER_SECOND = 250


def tight_budget(scale: Scale) -> Outcome:
    """Let more threads call than there is money for at once."""
    jobs = scale.pick(quick=250, full=600)
    seconds = scale.pick(quick=3.0, full=10.0)
    with Stage(model_seconds=_MODEL_SECONDS, concurrency=_THREADS, settings=_SETTINGS) as stage:
        worker = stage.worker()
        stage.wait(20, stage.ask(stage.questions(1)))
        stage.endpoint.hold()
        with BudgetWatch(stage, _LIMIT_USD) as watch:
            stage.ask(stage.questions(jobs))
            stage.wait_for_in_flight(_AT_ONCE)
            time.sleep(2)
        at_once = stage.endpoint.counts().in_flight
        began_at, cpu = time.monotonic(), _cpu_seconds(worker.pid)
        with stage.money.counted() as usage:
            time.sleep(seconds)
        waited = time.monotonic() - began_at
        cpu_share = (_cpu_seconds(worker.pid) - cpu) / waited
        with BudgetWatch(stage, _LIMIT_USD) as watch:
            released_at = time.time()
            stage.endpoint.release()
            stage.wait(120)
            remarks = find_money_faults(stage, watch)
        took = time.time() - released_at
        pace = jobs / took
        late = [
            call.answered_at - released_at - index / pace
            for index, call in enumerate(stage.calls[1:])
            if call.answered_at
        ]
        per_second = usage.round_trips / waited
        if per_second > _ROUND_TRIPS_PER_SECOND:
            remarks.append(f"{per_second:.0f} round trips a second while all wait")
        outcome = stage.outcome(f"budget: {_THREADS} threads, money for {_AT_ONCE} at once", remarks=remarks)
        figures: dict[str, str | int | float] = {
            "called at once": at_once,
            "round trips a second while all wait": round(per_second),
            "processor while all wait": f"{cpu_share:.0%}",
            "calls a second": round(pace, 1),
            "of these possible": round(_AT_ONCE / _MODEL_SECONDS, 1),
            "latest after its turn": f"{max(late):.1f} s",
            "dollars over": dollars(watch.worst_over),
        }
        return dataclasses.replace(outcome, figures=figures)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


FAULTS: dict[str, Callable[[Scale], Outcome]] = {"budget-tight": tight_budget}
