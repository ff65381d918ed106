"""Counts calls for an experiment: what a flush costs Redis, what a hit costs its process, and what the sums take."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks.repetition import alternate
from dspyq import predict
from dspyq.cache.memory import process_cache
from dspyq.config.settings import get_settings
from dspyq.core.ids import new_id
from dspyq.experiments import administration
from dspyq.experiments.arm_hits import ArmHits, in_scripts
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.placement import BUCKETS, CELLS, place
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.tally import process_tally
from dspyq.store.clients import jobs_client
from dspyq.store.keys import experiment_sums_key, key
from dspyq.store.scripts import load_script

_HEARING_SECONDS = 0.5
_SEED = 20261130
_DAY = 20_000
_QUESTIONS = 3_000
_WAITED_SECONDS = 50e-6


def measure_flushes(exposures_a_flush: int, flushes: int, units: int) -> float:
    """Return the microseconds of Redis's processor that an exposure takes, in flushes of so many."""
    state, chance = _started("counted"), _chance()
    made = [_flush_of(state, chance, exposures_a_flush, units) for _ in range(flushes + 1)]
    if state.tracks_served:  # of answers that have a score already
        _score_answers(state)
    _send(made[0], state)
    before = _redis_seconds()
    for scripts in made[1:]:
        _send(scripts, state)
    return (_redis_seconds() - before) / (exposures_a_flush * flushes) * 1e6


def measure_memory(rows: int, calls_a_row: int, units: int) -> dict[str, float]:
    """Return the mebibytes of three arms' sums after a tenth of the rows and after all, and the calls counted."""
    state, chance = _started("counted"), _chance()
    sizes = []
    for number in range(rows // 1_000):
        _send(_flush_of(state, chance, 1_000, units, calls_a_row), state)
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


def measure_hits(questions: int, units: int, calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of a process's processor that a hit in memory takes: counted, and of a program without."""
    _start_hearing("counted")
    asked = [(f"What is number {number % questions}?", f"user {number % units}") for number in range(calls)]
    counted = _hits("counted", asked, are_counted=True)
    return alternate(rounds, {"counted": counted, "plain": _hits("plain", asked, are_counted=False)})


def measure_enrolled_hits(calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the same of units that are enrolled in an experiment, and of others in it."""
    state = _start_hearing("half")
    placed = [(unit, place(state.placing, unit)) for unit in (f"user {number}" for number in range(400))]

    def block(*, are_counted: bool) -> Callable[[], float]:
        units = [unit for unit, found in placed if found and found.is_counted == are_counted][:50]
        asked = [(f"What is number {number % 10}?", units[number % len(units)]) for number in range(calls)]
        return _hits("half", asked, are_counted=are_counted)

    return alternate(rounds, {"enrolled": block(are_counted=True), "others": block(are_counted=False)})


def _start_hearing(program: str) -> ExperimentState:
    state = _started(program)
    process_cache()
    time.sleep(_HEARING_SECONDS)  # a memory cache is used once it hears invalidations
    return state


def _hits(program: str, asked: list[tuple[str, str]], *, are_counted: bool) -> Callable[[], float]:
    """Return a block of hits, of pairs of question and unit."""

    def ask(question: str, unit: str) -> Any:
        return predict.apply_async(kwargs={"question": question}, program=program, unit=unit).get(timeout=60)

    for question, unit in dict.fromkeys(asked):
        ask(question, unit)
        metadata = ask(question, unit).metadata
        if metadata.cache_level != "memory" or (metadata.exposure is not None) != are_counted:
            raise RuntimeError("the answer does not come from memory, or is not counted as it should be")

    def run() -> float:
        started = time.process_time()
        for question, unit in asked:
            ask(question, unit)
        return (time.process_time() - started) / len(asked)

    return run


def measure_own_flushes(exposures_a_flush: int, flushes: int, units: int) -> float:
    """Return the seconds of a process's processor that a flush of so many exposures takes."""
    state, chance, tally = _started("counted"), _chance(), process_tally()
    seconds = []
    for _ in range(flushes):
        for exposure, answer in _exposures(state, chance, exposures_a_flush, units):
            tally.count(exposure, answer, _WAITED_SECONDS, is_slow=False)
        started = time.process_time()
        tally.flush()
        seconds.append(time.process_time() - started)
    return median(seconds)


def _started(program: str) -> ExperimentState:
    return administration.read_state(program) or administration.start(get_settings().programs[program])


def _chance() -> random.Random:
    return random.Random(_SEED)  # noqa: S311 - no secret


def _exposures(
    state: ExperimentState, chance: random.Random, number: int, units: int
) -> Iterator[tuple[Exposure, str]]:
    """Yield calls and their answers: units and questions are skewed, as users' are."""
    for _ in range(number):
        unit, question = int(units * chance.random() ** 2), int(_QUESTIONS * chance.random() ** 3)
        arm = state.arms[unit % len(state.arms)]
        exposure = Exposure(
            state.program, state.epoch, arm, unit * 7_919 % BUCKETS, question * 104_729 % BUCKETS,
            unit * 1_299_709 % CELLS, _DAY,
        )  # fmt: skip
        yield exposure, f"{arm} {question}" if state.tracks_served else ""


def _flush_of(state: ExperimentState, chance: random.Random, number: int, units: int, calls: int = 1) -> list[bytes]:
    """Return what the scripts of a flush are given, each exposure so many times."""
    hits = {arm: ArmHits() for arm in state.arms}
    for exposure, answer in _exposures(state, chance, number, units):
        hits[exposure.arm].add(exposure, answer, int(_WAITED_SECONDS * 1e6), is_slow=False)
    parts = [part for arm, each in hits.items() for part in each.parts(arm, _DAY)]
    for part in parts:
        if calls > 1 and part.kind != "cells":
            part.values[1::2] = [int(amount) * calls for amount in part.values[1::2]]
    return list(in_scripts(parts))


def _send(scripts: list[bytes], state: ExperimentState) -> None:
    count = load_script(jobs_client(), "dspyq.experiments", "count")
    for parts in scripts:
        count(process=new_id(), flush=1, program=state.program, epoch=state.epoch, parts=parts)


def _score_answers(state: ExperimentState) -> None:
    client = jobs_client()
    for arm in state.arms:
        for question in range(_QUESTIONS):
            answer = key("experiment-answer:") + f"{arm} {question}"
            client.hset(answer, mapping={"exposure": f"{state.epoch} {arm} 1 2 3 {_DAY}", "s:is_brief": 500_000})


def _redis_seconds() -> float:
    used: Any = jobs_client().info("cpu")  # to the microsecond, unlike /proc
    return float(used["used_cpu_sys"] + used["used_cpu_user"])


def _mebibytes(state: ExperimentState) -> float:
    client: Any = jobs_client()
    keys = client.keys(experiment_sums_key(state.program, state.epoch) + "*")
    return sum(client.memory_usage(key, samples=0) for key in keys) / 2**20
