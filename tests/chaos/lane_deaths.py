"""Kills one of two workers at random moments of a batch in the provider's lane."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.chaos.stored import what_is_left
from tests.support.processes import REPOSITORY, wait_until

_CALLS_PER_ROW = 2
_LINES_PER_SHIPMENT = 25
#: A kill follows the last one's new worker so soon, or so late.
_SECONDS_BETWEEN_KILLS = (0.2, 3.0)
_LONGEST_SECONDS = 300.0
_SETTINGS: dict[str, Any] = {
    "models": {
        "control": {
            "batch": "openai",
            "batch_discount": 0.5,
            "batch_linger_seconds": 0.5,
            "batch_max_requests": _LINES_PER_SHIPMENT,
        }
    },
    "lane": {"first_poll_seconds": 0.2, "settle_seconds": 2},
    "programs": {
        "twice": {
            "signature": "question -> answer",
            "class": "tests.support.dspy_programs:TwoSteps",
            "lanes": ["provider"],
            "variants": {"control": {"model": "control"}},
        }
    },
}


def lane_killed(scale: Scale) -> Outcome:
    """Kill workers while rows of two calls are in the lane; another worker goes on with what each one left."""
    rows, kills = scale.pick(quick=30, full=200), scale.pick(quick=3, full=15)
    with Stage(settings=_SETTINGS) as stage:
        stage.endpoint.clear()
        stage.endpoint.batches.script(times=1, is_manual=True)  # so that the batch outlives the kills
        stage.endpoint.batches.script(delay_seconds=1.0)
        batch = _start(stage, rows)
        try:
            _kill_workers(stage, scale, kills)
            stage.endpoint.batches.finish()
            text, _ = batch.communicate(timeout=_LONGEST_SECONDS)
        finally:
            batch.kill()
        outcome = json.loads(text.splitlines()[-1])["outcome"]
        lines = [json.loads(line) for line in (stage.folder / "out.jsonl").read_text().splitlines()]
        remarks = _money_faults(stage) + what_is_left(stage.redis, 10.0)
        if (outcome["state"], outcome["reconciliation"]["difference_nano_usd"]) != ("finished", 0):
            remarks.append(f"it ended so: {outcome}")
        answers = Counter(line["outputs"]["answer"] for line in lines if line["status"] == "ok")
        counts = stage.endpoint.batches.counts()
        return Outcome(
            fault=f"a worker of a lane killed {kills}×",
            jobs=rows,
            lost=len({_answer(number) for number in range(rows)} - answers.keys()),
            doubled_answers=len(lines) - len(answers),
            extra_model_calls=counts.lines_billed + stage.endpoint.calls() - _CALLS_PER_ROW * rows,
            explained_model_calls=0,
            recovery_seconds=(),
            recovery_bound_seconds=0,
            remarks=tuple(remarks),
            figures={"kills": kills, "shipments": counts.batches, "live calls": stage.endpoint.calls()},
        )


def _start(stage: Stage, rows: int) -> subprocess.Popen[str]:
    source = stage.folder / "in.jsonl"
    source.write_text("".join(json.dumps({"question": f"row {number}"}) + "\n" for number in range(rows)))
    command = [sys.executable, "-m", "dspyq", "batch", "run", str(source), "--program", "twice", "--json"]
    command += ["--lane", "provider", "--output", str(stage.folder / "out.jsonl")]
    environment = stage.environment() | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _kill_workers(stage: Stage, scale: Scale, kills: int) -> None:
    """Kill one of two workers, again and again, from the first shipment on."""
    workers = [stage.worker(waits=False) for _ in range(2)]
    for worker in workers:
        worker.ready()
    stage.endpoint.batches.wait_for_batches(1)
    for _ in range(kills):
        time.sleep(scale.random.uniform(*_SECONDS_BETWEEN_KILLS))
        worker = scale.random.choice(workers)
        worker.kill()
        worker.start()
        worker.ready()


def _money_faults(stage: Stage) -> list[str]:
    """Return remarks on a lane that does not end, calls billed twice, and an account that is not the bill."""
    remarks = []
    with stage.redis.client() as client:

        def is_empty() -> bool:
            return not [key for key in client.keys("dspy:v1:lane*") if not key.endswith(":past")]

        with suppress(TimeoutError):
            wait_until(is_empty, 60, "the lane's end")
        if not is_empty():
            remarks.append(f"left of the lane: {client.keys('dspy:v1:lane*')}")
        (account,) = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(":") == 4]
        settled, held = (int(amount or 0) for amount in client.hmget(account, "settled", "held"))
    counts, bill = stage.endpoint.batches.counts(), stage.endpoint.batches.bill().nano_usd
    if (settled, held) != (bill, 0):
        remarks.append(f"the account has {settled} settled and {held} held, and the bill is {bill}")
    if counts.billed_twice or counts.double_names:
        remarks.append(f"billed twice: {counts.billed_twice}; batches of one name: {counts.double_names}")
    if counts.files_left:
        remarks.append(f"{counts.files_left} files left at the provider: {stage.endpoint.batches.files()}")
    return remarks


def _answer(number: int) -> str:
    return f"echo:row {number} first echo:row {number} second"


FAULTS: dict[str, Callable[[Scale], Outcome]] = {"lane-killed": lane_killed}
