"""Kills whatever a batch stands on, at random rows, and compares OUT with that of an undisturbed run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspyq.core.money import to_nano_usd
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.processes import REPOSITORY

_WORKERS = 2
_CONCURRENCY = 4
_MODEL_SECONDS = 0.02
_TORN = b'{"custom_id": "torn", "status": "o'
#: However slow the machine is, work goes on between two kills.
_ANSWERS_BETWEEN_KILLS = (20, 80)
#: Every question is as wide, and so takes as many tokens.
_WIDTH = 6


@dataclass(frozen=True)
class _Files:
    """IN, and the rows of it that another batch has asked before."""

    rows: Path
    warm: Path


def batch(scale: Scale) -> Outcome:
    """Kill the batch, workers and Redis; lines as they land."""
    return _killed(scale, "batch, its workers and Redis killed at random rows", ())


def batch_ordered(scale: Scale) -> Outcome:
    """Kill the batch, workers and Redis; lines in the order of the input."""
    return _killed(scale, "the same, lines in order", ("--ordered",))


def _killed(scale: Scale, name: str, options: tuple[str, ...]) -> Outcome:
    kills = scale.pick(quick=4, full=20)
    with Stage(model_seconds=_MODEL_SECONDS, concurrency=_CONCURRENCY, is_append_only=True) as stage:
        files = _write_rows(stage.folder, scale, scale.pick(quick=300, full=4000))
        with _workers_killed(stage, scale) as trouble:
            _prepare(stage, files)
            whole = stage.folder / "whole.jsonl"
            _run(stage, files.rows, whole, options)
            with stage.redis.client() as client:
                client.flushall()
            _prepare(stage, files)
            torn = stage.folder / "out.jsonl"
            trouble.set()
            finished, done_kills = _run_and_kill(stage, scale, files.rows, torn, options, kills)
            trouble.clear()
        lines, expected = _read(torn), _read(whole)
        remarks = _differences(lines, expected, is_ordered=bool(options))
        counts = stage.endpoint.counts()
        computed = [line for line in lines if line["status"] == "ok" and not line["metadata"]["cached"]]
        listed = finished["reconciliation"]["uncollected"]
        extra = counts.completions - len(computed)
        calls_on_rows = _calls_on_rows(computed)
        on_rows_again = sum(calls_on_rows) - len(computed)
        # Where Redis is away when a call is to be settled, its answer may be collected before that: its row states the
        # tokens of its run, and its cost is listed; at its bound, where the worker dies meanwhile.
        stated_alone = calls_on_rows.count(0)
        if stated_alone > len(listed):
            remarks.append(f"{stated_alone} rows carry no cost, and {len(listed)} calls are listed")
        for kind in ("prompt_tokens", "completion_tokens"):
            each = min(line["metadata"]["usage"][kind] or math.inf for line in computed)
            on_rows = sum(line["metadata"]["usage"][kind] for line in computed)
            if getattr(counts, kind) != on_rows + (extra - on_rows_again - stated_alone) * each:
                remarks.append(f"{kind}: the endpoint counts {getattr(counts, kind)}, OUT {on_rows}, and {extra} calls")
        if finished["reconciliation"]["difference_nano_usd"]:
            remarks.append(f"the books differ: {finished['reconciliation']}")
        if (finished["state"], finished["left"]) != ("finished", 0):
            remarks.append(f"it ended so: {finished}")
        return Outcome(
            fault=name,
            jobs=len(expected),
            lost=len(_numbers(expected) - _numbers(lines)),
            doubled_answers=len(lines) - len(_numbers(lines)),
            extra_model_calls=extra,
            explained_model_calls=len(listed) + on_rows_again,
            recovery_seconds=(),
            recovery_bound_seconds=0,
            remarks=tuple(remarks),
            figures={
                "kills of the batch": done_kills,
                "kills of workers": trouble.worker_kills,
                "kills of Redis": trouble.redis_kills,
                "computed": len(computed),
                "calls on no row": len(listed),
                "second calls on rows": on_rows_again,
            },
        )


def _write_rows(folder: Path, scale: Scale, count: int) -> _Files:
    """Write rows: new ones, duplicates, some that are answered before, some that fail, some that are no rows."""
    rows, warm, questions = [], [], []
    for number in range(1, count + 1):
        custom_id = f"row {number}"
        question = f"question {number:0{_WIDTH}}"
        dice = scale.random.random()
        if dice < 0.1 and questions:
            question = scale.random.choice(questions)
        elif dice < 0.2:
            warm.append({"question": question})
        elif dice < 0.22:
            question = f"failing! {number:0{_WIDTH}}"
        elif dice < 0.24:
            custom_id = "row 1"
        questions.append(question)
        row = {"custom_id": custom_id, "inputs": {"question": question}}
        rows.append("no JSON" if 0.24 <= dice < 0.26 else json.dumps(row))
    files = _Files(folder / "in.jsonl", folder / "warm.jsonl")
    files.rows.write_text("\n".join(rows) + "\n")
    files.warm.write_text("".join(json.dumps(row) + "\n" for row in warm))
    return files


def _prepare(stage: Stage, files: _Files) -> None:
    """Have the warm rows answered by a batch of their own, and count from there."""
    stage.endpoint.reset()
    _run(stage, files.warm, stage.folder / f"warm-{time.monotonic_ns()}.jsonl", ())
    stage.endpoint.reset()
    stage.endpoint.script(latency_seconds=_MODEL_SECONDS)
    stage.endpoint.script(containing="failing!", status=400)


def _command(rows: Path, output: Path, options: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "dspyq", "batch", "run", str(rows), "--output", str(output), "--json", *options]


def _start(
    stage: Stage, rows: Path, output: Path, options: tuple[str, ...], *, events: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    environment = stage.environment() | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [*_command(rows, output, options), "--in-flight", "100"], env=environment, stdout=events,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run_batch(stage: Stage, rows: Path, output: Path) -> list[dict[str, Any]]:
    """Run a batch that nobody disturbs to its end; return its lines."""
    _run(stage, rows, output, ())
    return _read(output)


def _run(stage: Stage, rows: Path, output: Path, options: tuple[str, ...]) -> dict[str, Any]:
    """Run a batch to its end; return its outcome."""
    process = _start(stage, rows, output, options)
    try:
        text, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    try:
        outcome: dict[str, Any] = json.loads(text.splitlines()[-1])["outcome"]
    except (ValueError, IndexError, KeyError):
        raise RuntimeError(f"the batch did not finish: {text[-3000:]}") from None
    return outcome


def _run_and_kill(
    stage: Stage, scale: Scale, rows: Path, output: Path, options: tuple[str, ...], kills: int
) -> tuple[dict[str, Any], int]:
    """Run a batch, SIGKILL it at random rows and run it again; return its outcome, and how often it was killed."""
    count = len(rows.read_text().splitlines())
    targets = sorted(scale.random.randrange(count) for _ in range(kills))
    killed = 0
    for target in targets:
        process = _start(stage, rows, output, options, events=subprocess.DEVNULL)
        try:
            while process.poll() is None and _lines_in(output) <= target:
                time.sleep(0.005)
            killed += process.poll() is None
        finally:
            process.kill()
            process.communicate()
        if scale.random.random() < 0.5:
            with output.open("ab") as file:
                file.write(_TORN)
    return _run(stage, rows, output, options), killed


class _Trouble(threading.Event):
    """Set while workers and Redis are to be killed."""

    worker_kills = 0
    redis_kills = 0


@contextmanager
def _workers_killed(stage: Stage, scale: Scale) -> Iterator[_Trouble]:
    """Run workers, and kill them and Redis now and then while there is to be trouble."""
    workers = [stage.worker(waits=False) for _ in range(_WORKERS)]
    for worker in workers:
        worker.ready()
    trouble = _Trouble()
    is_ending = threading.Event()

    def make_trouble() -> None:
        next_at = 0
        while not is_ending.wait(0.02):
            answered = stage.endpoint.counts().answered if trouble.is_set() else 0
            if not trouble.is_set() or answered < next_at:
                continue
            next_at = answered + scale.random.randrange(*_ANSWERS_BETWEEN_KILLS)
            if scale.random.random() < 0.3:
                stage.redis.restart(force=True)
                trouble.redis_kills += 1
            else:
                worker = scale.random.choice(workers)
                worker.kill()
                trouble.worker_kills += 1
                worker.start()

    thread = threading.Thread(target=make_trouble)
    thread.start()
    try:
        yield trouble
    finally:
        is_ending.set()
        thread.join()


def _differences(lines: list[dict[str, Any]], expected: list[dict[str, Any]], *, is_ordered: bool) -> list[str]:
    """Return what of OUT is not as in the run that nobody disturbed."""
    told = {line["metadata"]["row"]: _told(line) for line in lines}
    remarks = [
        f"row {line['metadata']['row']} says {told[line['metadata']['row']]}, not {_told(line)}"
        for line in expected
        if line["metadata"]["row"] in told and told[line["metadata"]["row"]] != _told(line)
    ]
    numbers = [line["metadata"]["row"] for line in lines]
    if is_ordered and numbers != sorted(numbers):
        remarks.append("the lines are not in order")
    paid = Counter(
        line["outputs"]["answer"] for line in lines if line["status"] == "ok" and line["metadata"]["cost_usd"]
    )
    remarks += [f"{answer!r} is paid for on {count} rows" for answer, count in paid.items() if count > 1]
    return remarks[:10]


def _calls_on_rows(computed: list[dict[str, Any]]) -> list[int]:
    """Return of how many calls each row carries the cost: each call costs the same."""
    costs = [to_nano_usd(line["metadata"]["cost_usd"]) for line in computed]
    one = min(filter(None, costs))
    return [cost // one for cost in costs]


def _told(line: dict[str, Any]) -> tuple[Any, ...]:
    error = line["error"]
    return line["custom_id"], line["status"], line["outputs"], error and error["type"]


def _numbers(lines: list[dict[str, Any]]) -> set[int]:
    return {line["metadata"]["row"] for line in lines}


def _lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


FAULTS: dict[str, Callable[[Scale], Outcome]] = {"batch": batch, "batch-ordered": batch_ordered}
