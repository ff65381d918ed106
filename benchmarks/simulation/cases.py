"""Small cases that were measured on real parts, simulated beside their figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.simulation.costs import Costs
from benchmarks.simulation.scenario import Scenario, SpineAway, WorkersKilled, run

#: Of the measured kills: their lease, and when the simulated ones happen.
_LEASE_SECONDS, _KILLED_AT = 2.0, 0.5
_THREADS, _FEW_THREADS, _KILLED_THREADS = 200, 25, 50
#: As many as the benchmarks ask, by threads and the model's seconds.
_QUESTIONS = {(_THREADS, 1.0): 2_000, (_FEW_THREADS, 1.0): 1_200, (_FEW_THREADS, 0.25): 2_000}
#: Of the outage of one of three spines.
_AWAY_AT, _AWAY_SECONDS = 8.0, 5.0


@dataclass(frozen=True)
class Case:
    """A measured case.

    Attributes:
        name: As the table has it.
        unit: Of both figures.
        measured: The figure of real parts.
        command: What measures it.
        within: How far the simulation may be off, as a factor.
        simulate: Returns the simulated figure, of costs and a seed.
    """

    name: str
    unit: str
    measured: float
    command: str
    within: float
    simulate: Callable[[Costs, int], float]


def _speed(workers: int, threads: int, model_seconds: float) -> Callable[[Costs, int], float]:
    def simulate(costs: Costs, seed: int) -> float:
        questions = _QUESTIONS[threads, model_seconds]
        scenario = Scenario(
            workers=workers, threads=threads, model_seconds=model_seconds, questions=questions, seed=seed
        )
        return run(scenario, costs).per_second

    return simulate


def _recovery(costs: Costs, seed: int) -> float:
    scenario = Scenario(
        workers=2, threads=_KILLED_THREADS, questions=2 * _KILLED_THREADS, lease_seconds=_LEASE_SECONDS,
        faults=(WorkersKilled(_KILLED_AT, 1),), seed=seed,
    )  # fmt: skip
    return median(run(scenario, costs).recovery(_KILLED_AT))


def outage(seed: int) -> Scenario:
    """Return the outage of one of three spines, each with a worker of its own and money elsewhere."""
    return Scenario(
        spines=3, workers=3, threads=20, has_money_redis=True, questions=300, per_second=16.0, model_seconds=0.3,
        faults=(SpineAway(_AWAY_AT, 0, _AWAY_SECONDS),), seed=seed,
    )  # fmt: skip


def _slowest_of_others(costs: Costs, seed: int) -> float:
    outcome = run(outage(seed), costs)
    return max(outcome.delays(of_spine=number)[-1] for number in (1, 2)) + 0.3


_CHAOS = "python -m tests.chaos --only killed-running"
CASES = (
    Case("1 worker, 200 threads, a 1 s model", "/s", 183, "--only throughput", 1.10, _speed(1, _THREADS, 1.0)),
    Case("1 worker, 25 threads, a 1 s model", "/s", 24.5, "--only scale_out", 1.10, _speed(1, _FEW_THREADS, 1.0)),
    Case("2 workers, 25 threads, a 1 s model", "/s", 49.0, "--only scale_out", 1.10, _speed(2, _FEW_THREADS, 1.0)),
    Case("4 workers, 25 threads, a 1 s model", "/s", 96.7, "--only scale_out", 1.10, _speed(4, _FEW_THREADS, 1.0)),
    Case("1 process, 25 threads, a 0.25 s model", "/s", 93, "--only processes", 1.10, _speed(1, _FEW_THREADS, 0.25)),
    Case("2 processes, 25 threads, a 0.25 s model", "/s", 182, "--only processes", 1.10, _speed(2, _FEW_THREADS, 0.25)),
    Case("50 running killed, lease 2 s: answered after, median", "s", 2.5, _CHAOS, 1.40, _recovery),
    Case("a spine of 3 killed: slowest of the others", "s", 0.37, "a prototype", 1.25, _slowest_of_others),
)
