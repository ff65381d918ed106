"""Providers that are ill, slow, strict or unreadable: how many calls reach them, and what becomes of jobs and money."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.chaos.books import BudgetWatch, billed_nano_usd, dollars, find_money_faults, read_books
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import REPLY, Stage

_WORKERS = 2
_CONCURRENCY = 8
_THREADS = _WORKERS * _CONCURRENCY
_LIMIT_USD = 5.0
_THRESHOLD = 5
_TIMEOUT_SECONDS = 0.5
_PAUSE_SECONDS = 2
_SETTINGS = {
    "models": {"control": {"timeout_seconds": _TIMEOUT_SECONDS, "max_tokens": 64}},
    "budget": {"daily_usd": _LIMIT_USD},
    "breaker": {"failure_threshold": _THRESHOLD, "reset_timeout_seconds": 1, "max_reset_timeout_seconds": 2},
    "rate_limit": {"account_pause_seconds": _PAUSE_SECONDS, "max_account_pause_seconds": _PAUSE_SECONDS},
    "retry": {"base_delay_seconds": 0.1},
}
#: The longest pause, the second until a queue is looked at again, and the jobs that waited.
_RECOVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Trouble:
    """The behaviour of a provider while it is in trouble.

    Attributes:
        text: As the table calls it.
        script: What the endpoint does.
        calls_at_most: How many calls may reach it, of how many seconds it lasts and how many jobs there are.
        passes: Whether a job is to wait for its end; else its caller is told at once.
    """

    text: str
    script: dict[str, Any]
    calls_at_most: Callable[[float, int], float]
    passes: bool = True


def _of_breaker(seconds: float, _: int) -> float:
    """Up to the threshold, those under way then, and a probe for each opening: the first lasts 1 s, all others 2 s."""
    return _THRESHOLD - 1 + _THREADS + 1 + seconds / 2 + 1


def _of_gate(pause_seconds: float) -> Callable[[float, int], float]:
    """Those under way whenever the gate opens."""
    return lambda seconds, _: _THREADS * (seconds / pause_seconds + 1)


def _of_doubling_gate(seconds: float, _: int) -> float:
    """The same, of a gate that is closed for 1, 2, 4 … seconds."""
    return _THREADS * (int(math.log2(seconds + 1)) + 1)


_TROUBLES = {
    "500": Trouble("status 500", {"status": 500}, _of_breaker),
    "hang": Trouble("hang", {"fault": "hang"}, _of_breaker),
    "trickle": Trouble("a byte each 0.2 s", {"fault": "trickle", "trickle_interval_seconds": 0.2}, _of_breaker),
    "cut": Trouble("connection cut in mid-reply", {"fault": "cut"}, _of_breaker),
    "disconnect": Trouble("connection closed, no reply", {"fault": "disconnect"}, _of_breaker),
    "html": Trouble("HTML with status 200", {"fault": "html"}, _of_breaker),
    "429-stated": Trouble("status 429, Retry-After 2", {"status": 429, "headers": {"retry-after": "2"}}, _of_gate(2)),
    "429": Trouble("status 429", {"status": 429}, _of_doubling_gate),
    "401": Trouble("status 401", {"status": 401}, _of_gate(_PAUSE_SECONDS)),
    "quota": Trouble(
        "quota used up", {"status": 429, "error_code": "insufficient_quota"}, _of_gate(_PAUSE_SECONDS)
    ),
    "400": Trouble("status 400", {"status": 400}, lambda _, jobs: jobs, passes=False),
    # Two replies for each of two samples: the adapter asks for JSON where it cannot read the first.
    "unparseable": Trouble("unparseable replies", {"fault": "unparseable"}, lambda _, jobs: 4 * jobs, passes=False),
}  # fmt: skip


def _run(name: str, scale: Scale) -> Outcome:
    trouble = _TROUBLES[name]
    seconds = scale.pick(quick=4.0, full=10.0)
    count = scale.pick(quick=40, full=200)
    with Stage(concurrency=_CONCURRENCY, settings=_SETTINGS) as stage:
        for worker in [stage.worker(waits=False) for _ in range(_WORKERS)]:
            worker.ready()
        with BudgetWatch(stage, _LIMIT_USD) as watch:
            stage.wait(20, stage.ask(stage.questions(_THREADS)))
            before = stage.endpoint.calls()
            latency_seconds = 0.0 if "fault" in trouble.script else stage.model_seconds
            content = {} if trouble.script.get("fault") == "unparseable" else {"content": "x"}
            stage.endpoint.script(latency_seconds=latency_seconds, **content, **trouble.script)
            hit = stage.ask(stage.questions(count))
            time.sleep(seconds)
            if not trouble.passes:
                stage.wait(20, hit)
            into_trouble = stage.endpoint.calls() - before
            stage.endpoint.clear()
            stage.endpoint.script(content=REPLY, latency_seconds=stage.model_seconds)
            ended_at = time.time()
            told = 0
            if not trouble.passes:
                told = sum(call.error is not None for call in hit)
                for call in hit:
                    if call.error is not None:
                        stage.calls.remove(call)
                stage.ask(stage.questions(count))
            stage.wait(40)
            recovery = stage.recovery_from(ended_at, hit) if trouble.passes else []
            remarks = find_money_faults(stage, watch)
            at_most = trouble.calls_at_most(seconds, count)
            if into_trouble > at_most:
                remarks.append(f"{into_trouble} calls into the trouble, of {at_most:g} at most")
            if not trouble.passes and told != count:
                remarks.append(f"{told} of {count} callers were told")
            outcome = stage.outcome(
                f"provider: {trouble.text} for {seconds:g} s" if trouble.passes else f"provider: {trouble.text}",
                recovery,
                explained_model_calls=into_trouble,
                bound_seconds=_RECOVERY_SECONDS,
                remarks=remarks,
            )
            books = read_books(stage)
            figures: dict[str, str | int | float] = {
                "calls into it": into_trouble,
                "at most": round(at_most),
                "told why": told,
                "dollars over": dollars(watch.worst_over),
                "billed by the endpoint": dollars(billed_nano_usd(stage.endpoint.counts())),
                "settled": dollars(watch.look().settled),
                "of unknown cost": books.get("unknown_calls", 0),
            }
            return dataclasses.replace(outcome, figures=figures)


FAULTS: dict[str, Callable[[Scale], Outcome]] = {
    f"provider-{name}": functools.partial(_run, name) for name in _TROUBLES
}
