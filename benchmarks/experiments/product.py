"""Experiments of the product itself: real servers, scripts and workers. The exit status is 1 if a bound does not hold.

The simulations of ``python -m benchmarks.experiments`` need numpy, and an environment of their own; this needs none.
"""

from __future__ import annotations

import functools
import statistics
import sys

from benchmarks.experiments import changes, counted_worlds, rollback
from benchmarks.experiments.bounds import Bound, Figure
from benchmarks.experiments.pieces import SEED, Parts, Piece, main
from tests.chaos.__main__ import run as run_faults

_NONE = Bound("≤", 0, "")
_FALSE = Bound("≤", 0.05)
_FAULTS = {
    "experiment-undisturbed": "calls of a fleet",
    "experiment-counts": "calls of a fleet; workers killed, connections cut",
    "experiment-producer-killed": "hits of a producer that is killed five times",
}


def _worlds(experiments: int) -> list[Piece]:
    return [Piece(traffic.name, functools.partial(_world, traffic, experiments)) for traffic in counted_worlds.TRAFFIC]


def _world(traffic: counted_worlds.CountedTraffic, experiments: int) -> list[Figure]:
    name, found = traffic.name, counted_worlds.findings(traffic, experiments, SEED)
    teeth = Bound("≥", 0.4) if name == counted_worlds.TRAFFIC[0].name else None
    count = len(found)
    return [
        Figure(name, "false verdicts, 10 looks", sum(each.is_found for each in found) / count, _FALSE, count),
        Figure(name, "score by call, one look, by unit alone", sum(each.errs_by_unit for each in found) / count, teeth),
        Figure(name, "clusters enough for a verdict at the end", sum(each.is_ripe for each in found) / count),
        Figure(name, "effective clusters, median", counted_worlds.median_clusters(found), unit=""),
        Figure(name, "counts that a replay of the calls has otherwise", sum(each.differences for each in found), _NONE),
        Figure(name, "calls that a cache answered", sum(each.hits for each in found) / count / counted_worlds.CALLS),
    ]


def _fleet(experiments: int) -> list[Piece]:
    seeds = max(1, experiments // 8)
    return [Piece(world, functools.partial(_replayed, name, world, seeds)) for name, world in _FAULTS.items()]


def _replayed(name: str, world: str, seeds: int) -> list[Figure]:
    """Hold counts against a replay; a producer's full form kills it five times, in one run."""
    is_producers = name == "experiment-producer-killed"
    outcomes = [
        outcome
        for seed in range(1, 2 if is_producers else seeds + 1)
        for _, outcome, _ in run_faults([name], seed, is_quick=not is_producers, at_once=1)
    ]
    remarks = [remark for outcome in outcomes for remark in outcome.remarks]
    for remark in remarks:
        print(f"{name}: {remark}", file=sys.stderr)
    measured = "more missing than its last second" if is_producers else "counts that differ from a replay"
    figures = [
        Figure(world, "calls", sum(outcome.jobs for outcome in outcomes), unit=""),
        Figure(world, measured, len(remarks), _NONE, len(outcomes)),
    ]
    if killed := sum(int(outcome.figures.get("killed", 0)) for outcome in outcomes):
        figures.insert(1, Figure(world, "workers killed", killed, unit=""))
    return figures


def _changes(experiments: int) -> list[Piece]:
    return [Piece("ramp, kill and stop under traffic", functools.partial(_changed, max(1, experiments // 8)))]


def _changed(seeds: int) -> list[Figure]:
    world, found = "ramp, kill and stop under traffic", [changes.late(seed) for seed in range(seeds)]
    if not all(each.model_calls_before for each in found):
        raise RuntimeError("the challenger was never asked, so that its last call says nothing")
    total = changes.Late(*map(sum, zip(*found, strict=True)))
    return [
        Figure(world, "changes", total.changes, unit="", of=seeds),
        Figure(world, "calls after them", total.calls, unit=""),
        Figure(world, "claims of the old state after the command", total.claims, _NONE),
        Figure(world, "model calls of the killed arm, begun after it", total.model_calls, _NONE),
        Figure(world, "hits in memory of the old state, after 1 s", total.hits, _NONE),
    ]


def _rollback(experiments: int) -> list[Piece]:
    seeds = max(2, experiments)
    return [Piece("failures +3%, rolled back by the referee", functools.partial(_rolled_back, seeds))]


def _rolled_back(seeds: int) -> list[Figure]:
    world = "failures +3%, rolled back by the referee"
    found = sorted(each for each in rollback.minutes(seeds) if each is not None)
    return [
        Figure(world, "within two hours", len(found) / seeds, Bound("≥", 1.0), seeds),
        Figure(world, "median until then", statistics.median(found), Bound("≤", 25, "minutes"), seeds),
        Figure(world, "the longest", found[-1], unit="minutes"),
    ]


PARTS: Parts = {"worlds": _worlds, "fleet": _fleet, "changes": _changes, "rollback": _rollback}

if __name__ == "__main__":
    sys.exit(
        main(
            PARTS,
            module="benchmarks.experiments.product",
            title="Experiments of the product itself",
            experiments=40,
        )
    )
