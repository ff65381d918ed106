"""Questions that always fail, at the head of a queue of good ones: each ends with its error, and none stops another."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tests.chaos.batches import run_batch
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.worker import Worker

_THREADS = 4
_MODEL_SECONDS = 0.6  # so long that bad questions fail five times in a row
_SETTINGS = {
    "models": {"control": {"timeout_seconds": 1.5, "max_tokens": 64}},
    "breaker": {"reset_timeout_seconds": 1, "max_reset_timeout_seconds": 8},
}
#: The defaults of ``[retry]``, and the questions that fail in an outage.
_ATTEMPTS, _PROBES, _OUTAGE = 3, 3, 5
_PATIENCE_SECONDS = 150.0
_ERRORS = ("TransientPredictionFailure", "PredictionFailed")
_KILL_EACH_SECONDS = 4.0


@dataclasses.dataclass(frozen=True)
class Poison:
    """The reply of the provider to some questions.

    Attributes:
        text: As the table calls it.
        script: What the endpoint does.
        count: How many such questions there are.
        is_killed: Whether the worker is killed all the while.
    """

    text: str
    script: dict[str, Any]
    count: int = 3
    is_killed: bool = False


_POISONS = {
    "500": Poison("status 500", {"status": 500}),
    "hang": Poison("a time limit", {"fault": "hang"}),
    "cut": Poison("a cut connection", {"fault": "cut"}),
    "html": Poison("HTML with status 200", {"fault": "html"}),
    "stated": Poison("an error inside a 200", {"body": json.dumps({"error": {"code": 502, "message": "down"}})}),
    "many": Poison("status 500, of seven", {"status": 500}, count=7),
    "killed": Poison("status 500, worker killed each 4 s", {"status": 500}, is_killed=True),
}


def _run(name: str, scale: Scale) -> Outcome:
    poison = _POISONS[name]
    count = scale.pick(quick=10, full=20)
    with Stage(model_seconds=_MODEL_SECONDS, concurrency=_THREADS, settings=_SETTINGS) as stage:
        worker = stage.worker()
        stage.endpoint.script(containing="poison", **poison.script)
        bad, good = stage.questions(poison.count, "poison"), stage.questions(count, "good")
        began_at = time.monotonic()
        calls = stage.ask([*bad, *good])
        kills = _kill(worker, lambda: all(call.answered_at for call in calls)) if poison.is_killed else 0
        stage.wait(_PATIENCE_SECONDS, calls)
        seconds = time.monotonic() - began_at
        remarks = [f"{call.question}: {call.error or 'no answer'}" for call in calls[poison.count :] if not call.answer]
        for call in calls[: poison.count]:
            if not any(error in (call.error or "") for error in _ERRORS):
                remarks.append(f"{call.question}: {call.error or call.answer or 'no end'}")
            stage.calls.remove(call)
        most, openings = _most_calls(stage, bad), _openings(stage)
        batch_began_at = time.monotonic()
        remarks += [] if poison.is_killed else _batch_alone(stage, poison.count, count)
        batch_seconds = time.monotonic() - batch_began_at
        at_most = _ATTEMPTS + _PROBES + (poison.count if poison.count >= _OUTAGE else 0) + kills
        if most > at_most:
            remarks.append(f"{most} calls for one bad question, of {at_most} at most")
        outcome = stage.outcome(
            f"bad questions: {poison.text}", explained_model_calls=stage.endpoint.calls(), remarks=remarks
        )
        figures: dict[str, str | int | float] = {
            "bad": poison.count,
            "good": count,
            "calls for a bad one, at most": most,
            "openings": openings,
            "all ended after": f"{seconds:.0f} s",
        }
        figures |= {"kills": kills} if poison.is_killed else {"a batch alone ended after": f"{batch_seconds:.0f} s"}
        return dataclasses.replace(outcome, figures=figures)


def _kill(worker: Worker, is_over: Callable[[], bool]) -> int:
    """Kill and start a worker again until all is over; return how often."""
    kills, give_up_at = 0, time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        next_at = time.monotonic() + _KILL_EACH_SECONDS
        while time.monotonic() < next_at:
            if is_over():
                return kills
            time.sleep(0.05)
        worker.kill()
        kills += 1
        worker.start()
    return kills


def _most_calls(stage: Stage, questions: Sequence[str]) -> int:
    asked = Counter(request.inputs["question"] for request in stage.endpoint.requests())
    return max(asked[question] for question in questions)


def _openings(stage: Stage) -> int:
    with stage.money.client() as client:
        return int(client.hget("dspy:v1:breaker:control", "openings") or 0)


def _batch_alone(stage: Stage, bad: int, good: int) -> list[str]:
    """Run a batch of bad rows and good ones, with nothing beside it; return what is wrong with its lines."""
    rows = stage.folder / "rows.jsonl"
    questions = [*stage.questions(bad, "poison"), *stage.questions(good, "good")]
    rows.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    lines = run_batch(stage, rows, stage.folder / "out.jsonl")
    remarks = [] if len(lines) == len(questions) else [f"{len(lines)} lines of {len(questions)}"]
    for line in lines:
        is_bad = line["metadata"]["row"] <= bad
        if (line["status"] == "ok") == is_bad:
            remarks.append(f"row {line['metadata']['row']}: {line['status']}, {line['error']}")
    return remarks


FAULTS: dict[str, Callable[[Scale], Outcome]] = {f"poison-{name}": functools.partial(_run, name) for name in _POISONS}
