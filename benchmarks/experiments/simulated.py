"""The simulations: what each measures, and the bounds that some of it must keep."""

from __future__ import annotations

import functools

from benchmarks.experiments import behind_cache, clustered, guard_delay, power, units
from benchmarks.experiments.bounds import Bound, Figure
from benchmarks.experiments.pieces import SEED, Parts, Piece

_FALSE = Bound("≤", 0.05)
#: Experiments of each kind: a batch of them.
FEWEST = 50


def _clustered(experiments: int) -> list[Piece]:
    few, some = max(FEWEST, experiments // 10), max(FEWEST, experiments // 4)
    larger = [_piece(f"base rate {rate:.0%}, ten times the units", _larger, rate, few) for rate in (0.01, 0.05)]
    alike = [
        _piece(f"clustered units, base rate {rate:.0%}", _alike, rate, experiments)
        for rate in (0.01, 0.05, 0.2, 0.5, 0.9)
    ]
    return [*alike, *larger, _piece("base rate 5%, arms of 90/10", _unequal, some)]


def _piece(name: str, measure: object, *given: object) -> Piece:
    return Piece(name, functools.partial(measure, name, *given))  # type: ignore[arg-type]  # a function of this module


def _alike(world: str, rate: float, experiments: int) -> list[Figure]:
    found = clustered.false_verdicts(rate, experiments, SEED)
    return [
        Figure(world, "false verdicts, 50 looks", found["joined"], _FALSE, experiments),
        Figure(world, "clusters enough for a verdict at the end", found["ripe"]),
        Figure(world, "false, z by call at each look", found["z by call, each look"]),
    ]


def _larger(world: str, rate: float, experiments: int) -> list[Figure]:
    found = clustered.false_verdicts(rate, experiments, SEED, size=10)
    return [
        Figure(world, "false verdicts, 50 looks", found["joined"], _FALSE, experiments),
        Figure(world, "clusters enough for a verdict at the end", found["ripe"]),
    ]


def _unequal(world: str, experiments: int) -> list[Figure]:
    found = clustered.false_verdicts(0.05, experiments, SEED, control_share=0.9)
    return [Figure(world, "false verdicts, 50 looks", found["joined"], None, experiments)]


def _behind_cache(experiments: int) -> list[Piece]:
    better = _piece("Zipf 1.0, answers better by 0.06", _better, max(FEWEST, experiments // 4))
    return [*(_piece(world.name, _same, world, experiments) for world in behind_cache.WORLDS), better]


def _same(name: str, world: behind_cache.Traffic, experiments: int) -> list[Figure]:
    found = behind_cache.findings(world, experiments, SEED)
    teeth = Bound("≥", 0.4) if name == "Zipf 1.0" else None
    ripe, clusters = (found["answer, ripe"], found["call, ripe"]), (found["answer G*"], found["call G*"])
    return [
        Figure(name, "score by answer, 50 looks: false", found["answer, joined, two ways"], _FALSE, experiments),
        Figure(name, "score by call, 50 looks: false", found["call, joined, two ways"], _FALSE, experiments),
        Figure(name, "cost by answer, 50 looks: false", found["cost, joined, two ways"], _FALSE, experiments),
        Figure(name, "score by answer, by question alone", found["answer, joined, by question alone"]),
        Figure(name, "score by answer, one look", found["answer, one look, two ways"]),
        Figure(name, "score by call, one look", found["call, one look, two ways"]),
        Figure(name, "score by call, one look, by unit alone", found["call, one look, by unit alone"], teeth),
        Figure(name, "clusters enough for a verdict at the end", ripe[0], beside=ripe[1]),
        Figure(name, "effective clusters by answer, by call", clusters[0], unit="", beside=clusters[1]),
    ]


def _better(world: str, experiments: int) -> list[Figure]:
    found = behind_cache.findings(behind_cache.WORLDS[0], experiments, SEED, effect=0.06)
    return [
        Figure(world, "found by answer, 50 looks", found["answer, joined, two ways"], None, experiments),
        Figure(world, "and the estimands agree", found["answer, joined, estimands agree"], None, experiments),
        Figure(world, "found by call, 50 looks", found["call, joined, two ways"], None, experiments),
    ]


def _power(experiments: int) -> list[Piece]:
    return [
        _piece("independent calls, 70 to 72 %", _of_independent, max(1000, experiments)),
        _piece("clustered units, by 1.25 × a fixed test's calls", _of_clustered, max(FEWEST, experiments // 10)),
    ]


def _of_independent(name: str, experiments: int) -> list[Figure]:
    found = power.calls_for_power(experiments, SEED)
    of_fixed, joined, mixture = found["fixed"], Bound("≤", 1.25, "×"), Bound("≥", 1.6, "×")
    return [
        Figure(name, "calls of a fixed test for 80 %", of_fixed, unit="calls", beside=found["computed"]),
        Figure(name, "joined rule, over that", found["joined"] / of_fixed, joined, experiments),
        Figure(name, "usual mixture, over that", found["mixture"] / of_fixed, mixture, experiments),
    ]


def _of_clustered(name: str, experiments: int) -> list[Figure]:
    found = clustered.found_by_plan(experiments, SEED)
    return [
        Figure(name, "joined rule has found the effect", found["joined"], None, experiments),
        Figure(name, "usual mixture has found it", found["mixture"], None, experiments),
        Figure(name, "too few effective clusters by then", found["waiting"], None, experiments),
    ]


def _ratio(experiments: int) -> list[Piece]:
    few = max(FEWEST, experiments // 20)
    sound = [
        _piece(f"sample ratio {'/'.join(f'{100 * each:.0f}' for each in shares)}", _sound, shares, experiments)
        for shares in ((0.5, 0.5), (0.9, 0.1), (0.8, 0.1, 0.1))
    ]
    unsound = [
        _piece(f"sample ratio 50/50, truly {100 * true:.0f}/{100 - 100 * true:.0f}", _unsound, true, few)
        for true in (0.55, 0.52)
    ]
    return [*sound, *unsound]


def _sound(name: str, shares: tuple[float, ...], experiments: int) -> list[Figure]:
    alarms, _ = units.ratio_alarms(shares, experiments, SEED)
    return [Figure(name, "false alarms, after each of 20,000 units", alarms, Bound("≤", 0.001), experiments)]


def _unsound(name: str, true: float, experiments: int) -> list[Figure]:
    found, at = units.ratio_alarms((0.5, 0.5), experiments, SEED, true=(true, 1 - true), units=40_000)
    return [
        Figure(name, "found in 40,000 units", found, None, experiments),
        Figure(name, "units until then, median", at, unit="units"),
    ]


def _ramp(experiments: int) -> list[Piece]:
    return [_piece("ramp 1 to 100 %", _ramped, 100 * experiments)]


def _ramped(name: str, count: int) -> list[Figure]:
    changed, left = units.changed_arms(count)
    return [
        Figure(name, "units that change their arm", changed, Bound("≤", 0, "units"), count),
        Figure(name, "units that leave the experiment", left, Bound("≤", 0, "units"), count),
    ]


def _guards(experiments: int) -> list[Piece]:
    count, few = max(2, experiments // 50), max(2, experiments // 100)
    harmful = [_piece(f"failures +{more:.0%}, margin +1 %", _harmful, more, count) for more in (0.03, 0.1, 0.5)]
    harmless = [
        _piece(name, _harmless, more, count)
        for more, name in ((0.0, "no more failures"), (0.01, "failures +1 %, the margin"))
    ]
    unproven = [
        _piece(f"failures +1 %, the margin, of a control of {control:.1%}", _unproven, control, few)
        for control in (0.000_001, 0.001)
    ]
    return [*harmless, *harmful, *unproven, _piece("nothing fails in either arm", _proven, max(2, few // 10))]


def _harmful(name: str, more: float, count: int) -> list[Figure]:
    found, minutes = guard_delay.breaches(more, count, SEED)
    return [
        Figure(name, "rolled back within 2 h", found, None, count),
        Figure(name, "median until then", minutes, unit="minutes"),
    ]


def _harmless(name: str, more: float, count: int) -> list[Figure]:
    found, _ = guard_delay.breaches(more, count, SEED, look_seconds=60)
    return [Figure(name, "rolled back within 2 h, 120 looks", found, Bound("≤", 0.01), count)]


def _unproven(name: str, control: float, count: int) -> list[Figure]:
    found = guard_delay.proven_harmless(control, guard_delay.MARGIN, count, SEED)
    return [Figure(name, "taken for harmless within 8 h, 240 looks", found, _FALSE, count)]


def _proven(name: str, count: int) -> list[Figure]:
    found = guard_delay.proven_harmless(0.000_001, 0.0, count, SEED)
    return [Figure(name, "proven harmless within 8 h", found, None, count)]


#: The longest first.
PARTS: Parts = {
    "behind_cache": _behind_cache,
    "guards": _guards,
    "clustered": _clustered,
    "power": _power,
    "ratio": _ratio,
    "ramp": _ramp,
}
