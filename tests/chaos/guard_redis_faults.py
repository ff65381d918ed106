"""Redis freezes, fills up or dies while a budget limit, a rate limit and a breaker are active."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from tests.chaos.books import BudgetWatch, billed_nano_usd, dollars, find_money_faults, read_books, read_statistics
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage

_WORKERS = 2
_CONCURRENCY = 8
_LIMIT_USD = 5.0
_REQUESTS_PER_SECOND = 40
_ERRORS = 4
_SETTINGS = {
    "delivery": {"max_deliveries": 3, "claim_timeout_seconds": 5},
    "models": {"control": {"requests_per_second": _REQUESTS_PER_SECOND, "max_tokens": 64}},
    "budget": {"daily_usd": _LIMIT_USD},
    "breaker": {"failure_threshold": 3, "reset_timeout_seconds": 1, "max_reset_timeout_seconds": 2},
    "retry": {"max_attempts": 10, "base_delay_seconds": 0.1},
}


def frozen(scale: Scale) -> Outcome:
    """Freeze Redis for longer than its clients wait for it, which is 10 s."""
    seconds = scale.pick(quick=4, full=12)

    def apply(stage: Stage) -> None:
        stage.redis.process.stop()
        time.sleep(seconds)
        stage.redis.process.cont()

    return _run(scale, f"guards: Redis frozen {seconds} s", apply)


def out_of_memory(scale: Scale) -> Outcome:
    """Let Redis be out of memory."""
    seconds = scale.pick(quick=4, full=10)

    def apply(stage: Stage) -> None:
        stage.redis.fill()
        time.sleep(seconds)
        stage.redis.make_room()

    return _run(scale, f"guards: Redis out of memory {seconds} s", apply)


def restarted(scale: Scale) -> Outcome:
    """Kill Redis, which writes every change down, and start it again."""
    seconds = scale.pick(quick=1, full=5)

    def apply(stage: Stage) -> None:
        stage.redis.process.kill()
        time.sleep(seconds)
        stage.redis.process.start()
        stage.redis.process.ready()

    return _run(scale, f"guards: Redis killed, {seconds} s away", apply, is_append_only=True)


def _run(scale: Scale, fault: str, apply: Callable[[Stage], None], *, is_append_only: bool = False) -> Outcome:
    with Stage(model_seconds=0.1, concurrency=_CONCURRENCY, is_append_only=is_append_only, settings=_SETTINGS) as stage:
        workers = [stage.worker(waits=False) for _ in range(_WORKERS)]
        for worker in workers:
            worker.ready()
        with BudgetWatch(stage, _LIMIT_USD) as watch:
            with stage.load(scale.pick(quick=10, full=20)):
                time.sleep(1)
                stage.endpoint.script(times=_ERRORS, status=503)  # the breaker has opened, and closes meanwhile
                time.sleep(1)
                apply(stage)
                ended_at = time.time()
                time.sleep(2)
            stage.wait(40)
            hit = [call for call in stage.calls if call.asked_at < ended_at < (call.answered_at or 0)]
            recovery = stage.recovery_from(ended_at, hit)
        with BudgetWatch(stage, _LIMIT_USD) as after:
            remarks = find_money_faults(stage, after)
            remarks += _rate_faults(stage)
            if watch.worst_over:
                remarks.append(f"settled and held were {dollars(watch.worst_over)} over the limit")
            remarks += ["a worker ended" for worker in workers if not worker.is_running]
            books, statistics = read_books(stage), read_statistics(stage)
            if unknown := books.get("unknown_calls", 0):
                remarks.append(f"{unknown} calls are charged as unknown, {dollars(books['unknown_nano_usd'])}")
            outcome = stage.outcome(fault, recovery, remarks=remarks, explained_model_calls=_ERRORS, bound_seconds=10.0)
            figures: dict[str, str | int | float] = {
                "dollars over": dollars(max(watch.worst_over, after.worst_over)),
                "billed by the endpoint": dollars(billed_nano_usd(stage.endpoint.counts())),
                "settled": dollars(after.look().settled),
                "holds leaked": after.look().calls,
                "holds expired": statistics.get("expired_holds", 0),
                "most calls in a second": _most_in_a_second(stage),
            }
            return dataclasses.replace(outcome, figures=figures)


def _most_in_a_second(stage: Stage) -> int:
    moments = [request.received_at_seconds for request in stage.endpoint.requests()]
    return max((sum(start <= other < start + 1 for other in moments) for start in moments), default=0)


def _rate_faults(stage: Stage) -> list[str]:
    most = _most_in_a_second(stage)
    return [f"{most} calls in a second"] if most > _REQUESTS_PER_SECOND + 1 else []


FAULTS: dict[str, Callable[[Scale], Outcome]] = {
    "guards-redis-frozen": frozen,
    "guards-redis-full": out_of_memory,
    "guards-redis-restarted": restarted,
}
