"""The cost of counting for an experiment: Redis's, a hit's, and the memory of the sums."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from benchmarks.contenders import DSPYQ
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.repetition import median_ratio
from benchmarks.rows import Row, Target
from tests.support.configuration import default_document, merged, write_settings
from tests.support.processes import LocalProcess

_PATH = "experiment, counting"
_ROWS_A_FLUSH = 1_000
_MOST_MEBIBYTES = 4
_ARMS = ("control", "second", "third")
_TEMPERATURES = (0.0, 0.3, 0.6)
_QUESTION = "What is a task queue?"


def run(*, quick: bool) -> list[Row]:
    """Measure flushes, memory, and hits beside those of a program without an experiment."""
    flushes, rows, calls, rounds = (3, 10_000, 50, 3) if quick else (60, 100_000, 500, 40)
    calls_a_row = 10_000_000 // rows
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, Servers() as servers:
        settings = {"DSPYQ_CONFIG": str(_configuration(Path(folder), servers.endpoint.url))}
        flush = servers.run(
            "counting:measure_flushes", settings, exposures_a_flush=_ROWS_A_FLUSH, flushes=flushes, units=1_000_000
        )
        servers.redis.flush()
        memory = servers.run("counting:measure_memory", settings, rows=rows, calls_a_row=calls_a_row, units=1_000_000)
        servers.redis.flush()
        worker = LocalProcess(DSPYQ.name, list(DSPYQ.worker_command), ready_line="", env=servers.environment(settings))
        with worker:
            hits = servers.run("counting:measure_hits", settings, question=_QUESTION, calls=calls, rounds=rounds)
    counted = f"{memory['calls']:,} calls are counted"
    return [
        Row(_PATH, f"Redis, an exposure in a flush of {_ROWS_A_FLUSH:,}", "µs", flush,
            target=Target("value", "at most", 6.0)),
        Row(_PATH, "three arms after 10^7 calls", "MB", memory["late"], "after 10^6", memory["early"],
            memory["late"] / memory["early"], Target("value", "at most", _MOST_MEBIBYTES), note=counted),
        Row(_PATH, "hit in L1, processor", "µs", median(hits["counted"]) * MICROSECONDS, "without an experiment",
            median(hits["plain"]) * MICROSECONDS, median_ratio(hits["counted"], hits["plain"]),
            Target("ratio", "at most", 1.05)),
    ]  # fmt: skip


def _configuration(folder: Path, endpoint_url: str) -> Path:
    variants = {
        arm: {"model": "control", "weight": 1 / 3, "temperature": temperature}
        for arm, temperature in zip(_ARMS, _TEMPERATURES, strict=True)
    }
    program = {"signature": "question -> answer", "variants": variants}
    experiment = {"name": "counted", "arms": list(_ARMS), "primary": "answer.cost", "minimum_effect": "5 %"}
    programs = {"qa": None, "counted": program | {"experiment": experiment}, "plain": program}
    changes = {"workers": {"concurrency": 2}, "programs": programs}
    return write_settings(folder / "dspyq.toml", merged(default_document(endpoint_url), changes))
