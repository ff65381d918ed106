"""Whole batches, file to file: beside plain Celery's ``delay()``, beside loops without a queue; and their memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contenders import CELERY, DSPYQ
from benchmarks.harness import MEBIBYTE, Servers
from benchmarks.rows import Row, Target
from benchmarks.subjects.asking import questions

_PATH = "batch"
_LIMIT_MEBIBYTES = 200
_MODEL_SECONDS = 0.1
_DISTINCT = 50_000
_NOT_SLOWER = Target("ratio", "at least", 1.0)


def run(*, quick: bool) -> list[Row]:
    """Run batches of new rows and of cached ones, kill one, and look at the memory of each."""
    count = 1_000 if quick else 20_000
    with tempfile.TemporaryDirectory(prefix="batch-") as folder:
        with Servers() as servers:
            speed = list(_speed(servers, Path(folder), count, calls=100 if quick else 3_000))
        with Servers() as servers:
            memory = list(_memory(servers, Path(folder), [10, 1_000] if quick else [10, 10_000, 1_000_000]))
        with Servers() as servers:
            beside = list(_beside(servers, Path(folder), 300 if quick else 3_000))
    return [*speed, *beside, *memory]


def _speed(servers: Servers, folder: Path, count: int, calls: int) -> Iterator[Row]:
    """Rows read, checked, looked up, written and journaled a second, new and cached, beside plain Celery's calls."""
    delays = [1 / servers.run("batching:delay", calls=calls)]
    file = _write(folder / "new.jsonl", questions(count, "new"))
    new = _published_per_second(servers, file, count)
    delays.append(1 / servers.run("batching:delay", calls=calls))
    servers.redis.flush()
    servers.run("batching:fill", count=count, label="cached")
    cached = _rows_per_second(servers, _write(folder / "cached.jsonl", questions(count, "cached")))
    delays.append(1 / servers.run("batching:delay", calls=calls))
    theirs = sum(delays) / len(delays)
    for name, ours, limit in (("new", new, 3.0), ("cached", cached, 20.0)):
        target = Target("ratio", "at least", limit)
        yield Row(
            _PATH, f"{count:,} {name} rows", "/s", ours, f"{CELERY.name}, one by one", theirs, ours / theirs, target
        )


def _beside(servers: Servers, folder: Path, count: int) -> Iterator[Row]:
    """New rows over a model of 0.1 s, 200 at once: rows a second, memory, and rows paid again after a kill halfway."""
    file = _write(folder / "beside.jsonl", questions(count, "beside"))
    loops = {name: _loop_command(name, file) for name in ("dspy.Parallel", "asyncio")}
    found: dict[str, tuple[float, float, int]] = {}
    with servers.worker(DSPYQ):
        found["batch"] = _killed_halfway(servers, _command(file, folder / "beside.out"), count)
    for name, command in loops.items():
        found[name] = _killed_halfway(servers, command, count)
    measures = (("rows a second", "/s"), ("peak memory", "MB"), ("rows paid again after a kill", "rows"))
    for index, (measured, unit) in enumerate(measures):
        ours = found["batch"][index]
        for name in loops:
            theirs = found[name][index]
            ratio, target = (ours / theirs, _NOT_SLOWER) if index == 0 and name == "asyncio" else (None, None)
            yield Row(f"{_PATH}, beside", f"{count:,} rows, {measured}", unit, ours, name, theirs, ratio, target)


def _memory(servers: Servers, folder: Path, counts: list[int]) -> Iterator[Row]:
    """The most memory that a batch of cached rows and their duplicates takes."""
    distinct = min(max(counts), _DISTINCT)
    servers.run("batching:fill", count=distinct, label="memory")
    cached = questions(distinct, "memory")
    for count in counts:
        file = _write(folder / "memory.jsonl", (cached[number % distinct] for number in range(count)))
        with _started(servers, _command(file, folder / f"memory-{count}.out")) as process:
            peak = _peak_mebibytes(process)
        target = Target("value", "at most", _LIMIT_MEBIBYTES)
        yield Row(f"{_PATH}, memory", f"{count:,} rows", "MB", peak, target=target)


def _published_per_second(servers: Servers, file: Path, count: int) -> float:
    """Run a batch without workers until all of its rows wait; return how many came a second."""
    client = servers.redis.client()
    command = [*_command(file, file.with_suffix(".out")), "--in-flight", str(2 * count)]
    with _started(servers, command):
        first = 0
        started = 0.0
        while (waiting := client.zcard("dspy:v1:queue:qa.control")) < count:
            if waiting and not first:
                first, started = waiting, time.perf_counter()
            time.sleep(0.001)
        return (count - first) / (time.perf_counter() - started)


def _rows_per_second(servers: Servers, file: Path) -> float:
    """Run a batch; return how many rows a second it did from its start to its end."""
    with _started(servers, _command(file, file.with_suffix(".out"))) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        started = 0.0
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "started":
                started = time.perf_counter()
            if event["event"] == "finished":
                rows: int = event["outcome"]["cached"]
                return rows / (time.perf_counter() - started)
    raise RuntimeError("the batch did not finish")


def _killed_halfway(servers: Servers, command: list[str], count: int) -> tuple[float, float, int]:
    """Kill a run halfway and run it again; return rows a second, peak memory, and how many rows were paid again."""
    servers.endpoint.reset()
    servers.endpoint.script(latency_seconds=_MODEL_SECONDS)
    with _started(servers, command) as process:
        servers.endpoint.wait_for_calls(1, 60)
        started = time.perf_counter()
        servers.endpoint.wait_for_calls(count // 2, 300)
        per_second = (count // 2) / (time.perf_counter() - started)
        process.kill()
    with _started(servers, command) as process:
        peak = _peak_mebibytes(process)
    return per_second, peak, servers.endpoint.calls() - count


def _command(file: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "dspyq", "batch", "run", str(file), "--output", str(output), "--json"]


def _loop_command(name: str, file: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.subjects.loops", name, str(file)]


@contextmanager
def _started(servers: Servers, command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, env=servers.environment(), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _peak_mebibytes(process: subprocess.Popen[Any]) -> float:
    """Wait for the end of a process and return the most memory that it had."""
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.01)
    return peak / MEBIBYTE


def _write(file: Path, asked: Any) -> Path:
    with file.open("w") as lines:
        for number, question in enumerate(asked, start=1):
            lines.write(json.dumps({"custom_id": f"row-{number}", "inputs": {"question": question}}) + "\n")
    return file
