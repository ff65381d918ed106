"""A daily budget that runs out under everything at once: workers killed, calls cut short, a provider that fails."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import orjson

from tests.chaos.books import (
    NANO,
    BudgetWatch,
    billed_nano_usd,
    dollars,
    find_money_faults,
    read_books,
    read_statistics,
)
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.processes import REPOSITORY
from tests.support.worker import Worker

_WORKERS = 2
_CONCURRENCY = 8
_TIMEOUT_SECONDS = 1.0
#: What a hold outlives its call by, and how long that and a wait for its turn may take.
_LONGEST_HOLD_SECONDS = 30 + 2 + _TIMEOUT_SECONDS
_SHARE_IN_TROUBLE = 0.06
_TROUBLES = ({"status": 500}, {"status": 500}, {"fault": "cut"}, {"fault": "disconnect"}, {"fault": "hang"})
_REFUSED = re.compile(r"^{.*\"queue_paused\".*the daily limit .* is used up.*$", re.MULTILINE)


def _settings(first_limit_usd: float) -> dict[str, object]:
    two = {"signature": "question -> answer", "class": "tests.support.user_programs:TwoSteps"}
    return {
        "models": {"control": {"timeout_seconds": _TIMEOUT_SECONDS, "max_tokens": 64}},
        "programs": {"two": {**two, "variants": {"control": {"model": "control"}}}},
        "budget": {"daily_usd": first_limit_usd},
        "breaker": {"reset_timeout_seconds": 1, "max_reset_timeout_seconds": 2},
        "retry": {"max_attempts": 20, "max_seconds": 600, "base_delay_seconds": 0.1},  # none is to fail for bad luck
    }


def budget(scale: Scale) -> Outcome:
    """Run programs of one call and of two under kills and provider faults, on a budget that is raised where it ends."""
    jobs = scale.pick(quick=60, full=1200)
    first, *raised = (0.012, 5.0) if scale.is_quick else (0.15, 0.40, 5.0)
    with Stage(model_seconds=0.15, concurrency=_CONCURRENCY, settings=_settings(first)) as stage:
        workers = [stage.worker(waits=False) for _ in range(_WORKERS)]
        for worker in workers:
            worker.ready()
        with BudgetWatch(stage, first) as watch:
            with _troubled(stage, scale), _killed(workers, scale) as kills:
                stage.ask(stage.questions(jobs // 2), program="qa")
                stage.ask(stage.questions(jobs - jobs // 2), program="two")
                left = []
                for limit_usd in raised:
                    _wait_until_it_ran_out(stage, watch, scale)
                    left.append(_unused(watch))
                    _raise_limit(stage, limit_usd)
                stage.wait(scale.pick(quick=30, full=150))
            stage.wait(20)
            if scale.is_quick:
                _expire_holds(stage)
            remarks = find_money_faults(stage, watch, _LONGEST_HOLD_SECONDS + 10)
            refusals = [at for worker in workers for at in _refusals(worker)]
            free = sum(watch.refused_while_free(at) for at in refusals)
            if free:
                remarks.append(f"{free} refusals while money was free")
            if any(unused > watch.bounds[1] for unused in left):
                remarks.append(f"{left} nano-dollars unused when it had run out, and a call needs {watch.bounds[1]}")
            remarks += _entry_faults(stage, watch)
            statistics, books, counts = read_statistics(stage), read_books(stage), stage.endpoint.counts()
            if len(refusals) == 0:
                remarks.append("the budget never ran out")
            needed = jobs // 2 + 2 * (jobs - jobs // 2)
            outcome = stage.outcome(
                f"budget: {jobs} jobs, {kills()} SIGKILLs, 6 % of calls in trouble",
                explained_model_calls=counts.calls - needed,
                questions=needed,
                remarks=remarks,
            )
            figures: dict[str, str | int | float] = {
                "overspend": dollars(watch.worst_over),
                "moments looked at": len(watch.moments),
                "holds leaked": watch.look().calls,
                "refusals": len(refusals),
                "refused while money was free": free,
                "unused when it ran out": ", ".join(map(dollars, left)),
                "a call's bound": dollars(watch.bounds[1]),
                "calls at the endpoint": counts.calls,
                "of these served": counts.completions,
                "in the books": books.get("calls", 0),
                "of unknown cost": f"{books.get('unknown_calls', 0)}, {dollars(books.get('unknown_nano_usd', 0))}",
                "holds of the dead": statistics.get("expired_holds", 0),
                "billed by the endpoint": dollars(billed_nano_usd(counts)),
                "settled": dollars(watch.look().settled),
            }
            return dataclasses.replace(outcome, figures=figures)


@contextmanager
def _troubled(stage: Stage, scale: Scale) -> Iterator[None]:
    """Have a share of the calls fail, each in one of the ways."""
    is_ending = threading.Event()

    def trouble() -> None:
        seen = stage.endpoint.calls()
        while not is_ending.wait(0.05):
            calls = stage.endpoint.calls()
            for _ in range(seen, calls):
                if scale.random.random() < _SHARE_IN_TROUBLE:
                    stage.endpoint.script(times=1, **scale.random.choice(_TROUBLES))
            seen = calls

    thread = threading.Thread(target=trouble)
    thread.start()
    try:
        yield
    finally:
        is_ending.set()
        thread.join()


@contextmanager
def _killed(workers: list[Worker], scale: Scale) -> Iterator[Callable[[], int]]:
    """Kill one of the workers every few seconds, and start it again; give how often."""
    is_ending = threading.Event()
    count = 0

    def kill() -> None:
        nonlocal count
        shortest, longest = scale.pick(quick=1.0, full=2.0), scale.pick(quick=2.0, full=5.0)
        while not is_ending.wait(scale.random.uniform(shortest, longest)):
            worker = scale.random.choice(workers)
            worker.kill()
            count += 1
            worker.start()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield lambda: count
    finally:
        is_ending.set()
        thread.join()


def _wait_until_it_ran_out(stage: Stage, watch: BudgetWatch, scale: Scale) -> None:
    """Wait until no call has come for a while, though jobs wait, and nothing is held any more, as for the dead."""
    stall_seconds = scale.pick(quick=1.0, full=2.5)
    calls, since = stage.endpoint.calls(), time.monotonic()
    while not all(call.answered_at for call in stage.calls):
        time.sleep(0.1)
        if (now := stage.endpoint.calls()) != calls:
            calls, since = now, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            if watch.look().calls == 0:
                return
            if scale.is_quick:
                _expire_holds(stage)


def _unused(watch: BudgetWatch) -> int:
    moment = watch.look()
    return moment.limit - moment.settled - moment.held


def _raise_limit(stage: Stage, limit_usd: float) -> None:
    command = [sys.executable, "-m", "dspyq", "budget", "set", "--daily", str(limit_usd)]
    environment = stage.environment() | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)


def _expire_holds(stage: Stage) -> None:
    """Let the leases of what the dead held run out now: nobody calls the model at this time."""
    with stage.money.client() as client:
        for call_id in client.zrange("dspy:v1:budget:leases", 0, -1):
            client.zadd("dspy:v1:budget:leases", {call_id: 1}, xx=True)


def _refusals(worker: Worker) -> list[float]:
    """Return when a worker, in all its lives, paused a queue because the day's money was used up."""
    text = worker.log_file.read_text(errors="replace")
    return [datetime.fromisoformat(orjson.loads(line)["timestamp"]).timestamp() for line in _REFUSED.findall(text)]


def _entry_faults(stage: Stage, watch: BudgetWatch) -> list[str]:
    """Compare what predictions say they cost, and what the dead held, with what is settled: it must be all."""
    entries = of_the_dead = 0
    with stage.redis.client(decode_responses=False) as client:
        for call in stage.calls:
            payload = client.get(f"celery-task-meta-{call.handle.id}")
            with contextlib.suppress(TypeError, KeyError):
                entries += round(orjson.loads(payload or b"{}")["result"]["metadata"]["cost_usd"] * NANO)
        for key in client.scan_iter("dspy:v1:budget:hold:*", count=1000, _type="hash"):  # a settled call is a string
            state, bound = client.hmget(key, "state", "bound")
            of_the_dead += int(bound) if state == b"unknown" else 0
    difference = watch.look().settled - entries - of_the_dead
    if abs(difference) > len(stage.calls):  # a nano-dollar of rounding each
        return [
            f"entries {dollars(entries)} and the dead's {dollars(of_the_dead)} miss the settled {dollars(difference)}"
        ]
    return []


FAULTS: dict[str, Callable[[Scale], Outcome]] = {"budget": budget}
