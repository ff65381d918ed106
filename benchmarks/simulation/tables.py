"""The simulation as a benchmark: measured cases beside simulated ones, plans for large fleets, and their outages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.rows import Row, Target
from benchmarks.simulation.cases import CASES, outage
from benchmarks.simulation.measured import COSTS
from benchmarks.simulation.plan import (
    MOST_CLIENTS,
    MOST_LOAD,
    Assumptions,
    Plan,
    connections,
    deployments,
    full_at,
    plan,
)
from benchmarks.simulation.scenario import Outcome, Scenario, SpineAway, WorkersKilled
from benchmarks.simulation.scenario import run as simulate

SEED = 1
RATES = (100, 10_000, 100_000)
#: Simulated questions a second, at most: above it each stands for several.
_MOST_SIMULATED = 1_000
_SECONDS, _QUICK_SECONDS = 20.0, 3.0
_AWAY_SECONDS = 5.0
_MODEL_SPREAD = 0.5
_LEASE_SECONDS = 30.0
_PLOTTED = (100, 1_000, 10_000, 100_000)
_KEPT = {"a minute": 60, "an hour": 3_600, "a day": 86_400}
_MILLISECONDS = 1e3


def run(*, quick: bool) -> list[Row]:
    """Simulate measured cases and large fleets from measured costs, with outages; nothing is measured."""
    seconds = _QUICK_SECONDS if quick else _SECONDS
    rows = [*_cases(), *_full_at(), *_series()]
    for rate in RATES:
        rows += _planned(rate)
        rows += _simulated(rate, seconds)
    return rows


def scenario_of(planned: Plan, seconds: float, faults: Sequence[SpineAway | WorkersKilled] = ()) -> Scenario:
    """Return the run of a plan, with questions enough for so many seconds."""
    return Scenario(
        spines=planned.spines,
        workers=planned.workers + 1,  # what is asked comes unevenly
        served=Assumptions().served,
        questions=int(planned.per_second * seconds),
        per_second=planned.per_second,
        model_spread=_MODEL_SPREAD,
        lease_seconds=_LEASE_SECONDS,
        has_money_redis=planned.spines > 1,
        listeners=planned.listeners,
        weight=max(1, math.ceil(planned.per_second / _MOST_SIMULATED)),
        faults=tuple(faults),
        seed=SEED,
    )


def _cases() -> Iterator[Row]:
    path = "simulated beside measured"
    for case in CASES:
        simulated = case.simulate(COSTS, SEED)
        target = Target("ratio", "within", case.within)
        beside = f"measured, {case.command}"
        yield Row(path, case.name, case.unit, simulated, beside, case.measured, simulated / case.measured, target)
    outcome = simulate(outage(SEED), COSTS)
    yield Row(path, "one of three spines killed: lost", "", outcome.lost, target=Target("value", "at most", 0))


def _full_at() -> Iterator[Row]:
    for part, per_second in full_at(COSTS).items():
        yield Row("each part alone", f"{part}: full at", "/s", per_second)


def _series() -> Iterator[Row]:
    """Yield what the plot shows."""
    plans = [plan(rate, COSTS) for rate in _PLOTTED]
    cores = {
        "spines": [each.spines * each.spine_load for each in plans],
        "money": [each.money_load for each in plans],
        "workers": [each.worker_cores for each in plans],
        "asking": [each.asking_cores for each in plans],
    }
    for name, values in cores.items():
        yield _line("cores in use, by rate", name, "cores", values)
    for name, kept_seconds in _KEPT.items():
        values = [plan(rate, COSTS, Assumptions(kept_seconds=kept_seconds)).answer_gigabytes for rate in _PLOTTED]
        yield _line("GB of answers, by rate", f"kept {name}", "GB", values)
    for name, served in {"2 spines": 2, "4 spines": 4, "all spines": 0}.items():
        values = [
            connections(each.spines, each.workers, each.listeners, COSTS, Assumptions(served=served)) for each in plans
        ]
        yield _line("connections to a spine, by rate", f"a worker at {name}", "connections", values)


def _line(path: str, name: str, unit: str, values: Sequence[float]) -> Row:
    return Row(
        path, name, unit, values[-1], f"at {_PLOTTED[0]:,}", values[0], points=tuple(zip(_PLOTTED, values, strict=True))
    )


def _planned(rate: float) -> Iterator[Row]:
    path, count = f"{rate:,}/s, planned", deployments(rate, COSTS)
    one = plan(rate / count, COSTS)
    whole = plan(rate, COSTS)
    limit = Target("value", "at most", MOST_LOAD)
    yield Row(path, "money in one Redis, cores", "", whole.money_load, target=limit)
    yield Row(path, "deployments, so that each has a Redis for its money", "", count)
    yield Row(path, "each: spines", "", one.spines)
    yield Row(path, "each: load of a spine, cores", "", one.spine_load, target=limit)
    yield Row(path, "each: load of money, cores", "", one.money_load, target=limit)
    yield Row(path, "each: workers of 200 threads", "", one.workers)
    clients = Target("value", "at most", MOST_CLIENTS)
    yield Row(path, "each: connections to a spine, 2 spines a worker", "", one.spine_connections, target=clients)
    yield Row(path, "all: Redis servers", "", count * one.servers)
    yield Row(path, "all: workers", "", count * one.workers)
    yield Row(path, "all: virtual processors", "", count * one.vcpus)
    yield Row(path, "all: memory of answers kept an hour", "GB", count * one.answer_gigabytes)
    yield Row(path, "all: memory of workers", "GB", count * one.worker_gigabytes)
    yield Row(path, "all: an hour", "$", count * one.hour_usd)
    yield Row(path, "a million new predictions", "$", one.million_usd)


def _simulated(rate: float, seconds: float) -> Iterator[Row]:
    path, count = f"{rate:,}/s, simulated", deployments(rate, COSTS)
    if count > 1:
        whole = simulate(scenario_of(plan(rate, COSTS), seconds), COSTS)
        yield _delay(path, f"one Redis of money: delay, worst of {seconds:.0f} s", whole, 1.0)
    one = plan(rate / count, COSTS)
    calm = simulate(scenario_of(one, seconds), COSTS)
    yield _delay(path, "delay besides the model, median", calm, 0.5)
    yield _delay(path, "delay besides the model, 99 of 100", calm, 0.99)
    away = SpineAway(seconds / 2, 0, _AWAY_SECONDS)
    outcome = simulate(scenario_of(one, seconds, [away]), COSTS)
    yield Row(path, f"a spine away {_AWAY_SECONDS:.0f} s: lost", "", outcome.lost, target=Target("value", "at most", 0))
    if one.spines > 1:
        others = max(_quantile(outcome.delays(of_spine=number), 0.99) for number in range(1, one.spines))
        yield Row(path, "the others' delay, 99 of 100", "ms", others * _MILLISECONDS)
    killed = WorkersKilled(seconds / 2, max(1, one.workers // 10))
    outcome = simulate(scenario_of(one, seconds, [killed]), COSTS)
    recovery = outcome.recovery(seconds / 2)
    noun = "a worker" if killed.count == 1 else f"{killed.count} of {one.workers} workers"
    yield Row(path, f"{noun} killed: lost", "", outcome.lost, target=Target("value", "at most", 0))
    if recovery:
        most = Target("value", "at most", _LEASE_SECONDS + 1)
        yield Row(path, "its last answer after, a lease of 30 s", "s", recovery[-1], target=most)


def _delay(path: str, measured: str, outcome: Outcome, part: float) -> Row:
    return Row(path, measured, "ms", _quantile(outcome.delays(), part) * _MILLISECONDS)


def _quantile(values: Sequence[float], part: float) -> float:
    return values[min(len(values) - 1, int(len(values) * part))]
