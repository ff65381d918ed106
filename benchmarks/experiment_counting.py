"""The cost of counting for an experiment: Redis's, a hit's, and the memory of the sums."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.contenders import DSPYQ
from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.repetition import median_ratio
from benchmarks.rows import Row, Target
from tests.support.configuration import default_document, merged, write_settings
from tests.support.processes import LocalProcess

_PATH = "experiment, counting"
_EXPOSURES_A_FLUSH = 1_000
_MOST_MEBIBYTES = 4
#: Some blocks have a flush in them, whose processor time has a row of its own.
_CALLS_OF_A_BLOCK = 2_000
_ARMS = ("control", "second", "third")
_TEMPERATURES = (0.0, 0.3, 0.6)
#: The scorer is never called: flushes alone are measured with it.
_SCORED = {
    "scorers": ["quality:is_brief"],
    "experiment": {"scores": {"is_brief": {"scorer": "quality:is_brief", "low": 0, "high": 1}}},
}


class _Hits(NamedTuple):
    units: int
    questions: int


_HITS = (_Hits(1, 1), _Hits(50, 10))


def run(*, quick: bool) -> list[Row]:
    """Measure flushes, memory, and hits beside those of a program without an experiment."""
    flushes, rows, calls, rounds = (3, 10_000, 50, 3) if quick else (60, 100_000, _CALLS_OF_A_BLOCK, 60)
    calls_a_row = 10_000_000 // rows
    shape = {"exposures_a_flush": _EXPOSURES_A_FLUSH, "flushes": flushes, "units": 1_000_000}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, Servers() as servers:

        def settings(name: str, changes: dict[str, Any]) -> dict[str, str]:
            return {"DSPYQ_CONFIG": str(_configuration(Path(folder) / name, servers.endpoint.url, changes))}

        plain, scoring = settings("counted.toml", {}), settings("scored.toml", _SCORED)
        flush = servers.run("counting:measure_flushes", plain, **shape)
        servers.redis.flush()
        scored = servers.run("counting:measure_flushes", scoring, **shape)
        servers.redis.flush()
        memory = servers.run("counting:measure_memory", plain, rows=rows, calls_a_row=calls_a_row, units=1_000_000)
        servers.redis.flush()
        own = servers.run("counting:measure_own_flushes", plain, **shape)
        servers.redis.flush()
        worker = LocalProcess(DSPYQ.name, list(DSPYQ.worker_command), ready_line="", env=servers.environment(plain))
        with worker:
            hits = {
                many: servers.run("counting:measure_hits", plain, **many._asdict(), calls=calls, rounds=rounds)
                for many in _HITS
            }
            enrolled = servers.run("counting:measure_enrolled_hits", plain, calls=calls, rounds=rounds)
    counted = f"{memory['calls']:,} calls are counted"
    return [
        Row(_PATH, f"Redis, an exposure in a flush of {_EXPOSURES_A_FLUSH:,}", "µs", flush,
            target=Target("value", "at most", 6.0)),
        Row(_PATH, "Redis, an exposure to an answer that has a score", "µs", scored, "without", flush, scored / flush),
        Row(_PATH, "three arms after 10^7 calls", "MB", memory["late"], "after 10^6", memory["early"],
            memory["late"] / memory["early"], Target("value", "at most", _MOST_MEBIBYTES), note=counted),
        Row(_PATH, f"processor of the thread that flushes {_EXPOSURES_A_FLUSH:,}, an exposure", "µs",
            own * MICROSECONDS / _EXPOSURES_A_FLUSH),
        *(_hits_row(many, hits[many]) for many in _HITS),
        Row(_PATH, "hit in L1 of an enrolled unit, processor", "µs", median(enrolled["enrolled"]) * MICROSECONDS,
            "of others, same experiment", median(enrolled["others"]) * MICROSECONDS,
            median_ratio(enrolled["enrolled"], enrolled["others"])),
    ]  # fmt: skip


def _hits_row(many: _Hits, found: dict[str, list[float]]) -> Row:
    counted, plain = found["counted"], found["plain"]
    return Row(
        _PATH, f"hit in L1, processor; users: {many.units}, questions: {many.questions}", "µs",
        median(counted) * MICROSECONDS, "without an experiment", median(plain) * MICROSECONDS,
        median_ratio(counted, plain), Target("ratio", "at most", 1.05),
    )  # fmt: skip


def _configuration(path: Path, endpoint_url: str, changes: dict[str, Any]) -> Path:
    variants = {
        arm: {"model": "control", "weight": 1 / 3, "temperature": temperature}
        for arm, temperature in zip(_ARMS, _TEMPERATURES, strict=True)
    }
    program = {"signature": "question -> answer", "variants": variants}
    experiment = {"name": "counted", "arms": list(_ARMS), "primary": "answer.cost", "minimum_effect": "5 %"}
    counted = merged(program | {"experiment": experiment}, changes)
    half = program | {"experiment": experiment | {"name": "half", "ramp": [{"coverage": 0.5}]}}
    programs = {"qa": None, "counted": counted, "half": half, "plain": program}
    document = {"workers": {"concurrency": 2}, "programs": programs}
    return write_settings(path, merged(default_document(endpoint_url), document))
