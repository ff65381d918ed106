"""Counts calls for an experiment: what a flush costs Redis, what a hit costs its process, and what the sums take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.repetition import alternate
from dspyq import predict
from dspyq.cache.memory import process_cache
from dspyq.config.settings import get_settings
from dspyq.experiments import administration
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.placement import BUCKETS, CELLS
from dspyq.experiments.state import ExperimentState
from dspyq.store.clients import jobs_client
from dspyq.store.keys import experiment_sums_key
from dspyq.store.scripts import load_script

_HEARING_SECONDS = 0.5
_SEED = 20261130
_DAY = 20_000


def measure_flushes(exposures_a_flush: int, flushes: int, units: int) -> float:
    """Return the microseconds of Redis's processor that an exposure takes, in flushes of so many."""
    state = _started("counted")
    rows = _rows(state, exposures_a_flush * flushes, units, calls=1)
    width = len(rows) // flushes
    _flush("warm", rows[:width])
    before = _redis_seconds()
    for number in range(flushes):
        _flush(f"{number}", rows[number * width : (number + 1) * width])
    return (_redis_seconds() - before) / (exposures_a_flush * flushes) * 1e6


def measure_memory(rows: int, calls_a_row: int, units: int) -> dict[str, float]:
    """Return the mebibytes of three arms' sums after a tenth of the rows and after all, and the calls counted."""
    state = _started("counted")
    values = _rows(state, rows, units, calls=calls_a_row)
    width = len(values) // rows * 1_000
    sizes = []
    for number in range(rows // 1_000):
        _flush(f"memory {number}", values[number * width : (number + 1) * width])
        if number + 1 in {rows // 10_000, rows // 1_000}:
            sizes.append(_mebibytes(state))
    client = jobs_client()
    calls = 0
    for arm in state.arms:
        array = client.bitfield(experiment_sums_key(state.program, state.epoch) + f"{arm}:calls:u")
        for bucket in range(BUCKETS):
            array.get("i64", f"#{bucket * 7}")
        calls += sum(array.execute())
    return {"early": sizes[0], "late": sizes[-1], "calls": calls}


def measure_hits(question: str, calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a process's processor that a hit in memory takes: counted, and of a program without."""
    _started("counted")
    process_cache()
    time.sleep(_HEARING_SECONDS)  # a memory cache is used once it hears invalidations

    def block(program: str) -> Callable[[], float]:
        def ask() -> Any:
            return predict.apply_async(kwargs={"question": question}, program=program, unit="user").get(timeout=60)

        ask()
        metadata = ask().metadata
        if metadata.cache_level != "memory" or (metadata.exposure is not None) != (program == "counted"):
            raise RuntimeError("the answer does not come from memory, or is not counted as it should be")

        def run() -> float:
            started = time.process_time()
            for _ in range(calls):
                ask()
            return (time.process_time() - started) / calls

        return run

    return alternate(rounds, {"counted": block("counted"), "plain": block("plain")})


def _started(program: str) -> ExperimentState:
    return administration.start(get_settings().programs[program])


def _rows(state: ExperimentState, number: int, units: int, *, calls: int) -> list[str | int]:
    """Return rows of a flush: units and questions are skewed, as users' are."""
    chance = random.Random(_SEED)  # noqa: S311 - no secret
    rows: list[str | int] = []
    for _ in range(number):
        unit, question = int(units * chance.random() ** 2), int(3_000 * chance.random() ** 3)
        exposure = Exposure(
            state.program, state.epoch, state.arms[unit % len(state.arms)], unit * 7_919 % BUCKETS,
            question * 104_729 % BUCKETS, unit * 1_299_709 % CELLS, _DAY,
        )  # fmt: skip
        rows += [exposure.stated(), f"answer {question}", calls, 50 * calls, 0, 0]
    return rows


def _flush(name: str, rows: list[str | int]) -> None:
    load_script(jobs_client(), "dspyq.experiments", "count")(flush=name, program="counted", rows=rows)


def _redis_seconds() -> float:
    used: Any = jobs_client().info("cpu")  # to the microsecond, unlike /proc
    return float(used["used_cpu_sys"] + used["used_cpu_user"])


def _mebibytes(state: ExperimentState) -> float:
    client: Any = jobs_client()
    keys = client.keys(experiment_sums_key(state.program, state.epoch) + "*")
    return sum(client.memory_usage(key, samples=0) for key in keys) / 2**20
