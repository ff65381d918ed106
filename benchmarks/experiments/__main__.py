"""Runs the simulations and prints one table; the exit status is 1 if a bound does not hold."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from benchmarks.experiments import behind_cache, clustered, guard_delay, power, units
from benchmarks.experiments.bounds import Bound, Figure

SEED = 20261130
_FALSE = Bound("≤", 0.05)
_BATCH = 50  # the fewest
_WIDTH_OF_A_FILE = 160


def _clustered(experiments: int) -> Iterator[Figure]:
    for rate in (0.01, 0.05, 0.2, 0.5, 0.9):
        world, found = f"clustered units, base rate {rate:.0%}", clustered.false_verdicts(rate, experiments, SEED)
        yield Figure(world, "false verdicts, 50 looks", found["joined"], _FALSE, experiments)
        yield Figure(world, "clusters enough for a verdict at the end", found["ripe"])
        yield Figure(world, "false, z by call at each look", found["z by call, each look"])
    few = max(_BATCH, experiments // 10)
    for rate in (0.01, 0.05):
        world, found = f"base rate {rate:.0%}, ten times the units", clustered.false_verdicts(rate, few, SEED, size=10)
        yield Figure(world, "false verdicts, 50 looks", found["joined"], _FALSE, few)
        yield Figure(world, "clusters enough for a verdict at the end", found["ripe"])
    few = max(_BATCH, experiments // 4)
    found = clustered.false_verdicts(0.05, few, SEED, control_share=0.9)
    world = "base rate 5%, arms of 90/10"
    yield Figure(world, "false verdicts, 50 looks", found["joined"], None, few)


def _behind_cache(experiments: int) -> Iterator[Figure]:
    for traffic in behind_cache.WORLDS:
        world, found = traffic.name, behind_cache.findings(traffic, experiments, SEED)
        teeth = Bound("≥", 0.4) if world == "Zipf 1.0" else None
        yield Figure(world, "score by answer, 50 looks: false", found["answer, joined, two ways"], _FALSE, experiments)
        yield Figure(world, "score by call, 50 looks: false", found["call, joined, two ways"], _FALSE, experiments)
        yield Figure(world, "cost by answer, 50 looks: false", found["cost, joined, two ways"], _FALSE, experiments)
        yield Figure(world, "score by answer, by question alone", found["answer, joined, by question alone"])
        yield Figure(world, "score by answer, one look", found["answer, one look, two ways"])
        yield Figure(world, "score by call, one look", found["call, one look, two ways"])
        yield Figure(world, "score by call, one look, by unit alone", found["call, one look, by unit alone"], teeth)
        ripe = found["answer, ripe"], found["call, ripe"]
        yield Figure(world, "clusters enough for a verdict at the end", ripe[0], beside=ripe[1])
        clusters = found["answer G*"], found["call G*"]
        yield Figure(world, "effective clusters by answer, by call", clusters[0], unit="", beside=clusters[1])
    few = max(_BATCH, experiments // 4)
    found = behind_cache.findings(behind_cache.WORLDS[0], few, SEED, effect=0.06)
    world = "Zipf 1.0, answers better by 0.06"
    yield Figure(world, "found by answer, 50 looks", found["answer, joined, two ways"], None, few)
    yield Figure(world, "and the estimands agree", found["answer, joined, estimands agree"], None, few)
    yield Figure(world, "found by call, 50 looks", found["call, joined, two ways"], None, few)


def _power(experiments: int) -> Iterator[Figure]:
    experiments = max(1000, experiments)
    found = power.calls_for_power(experiments, SEED)
    name, of_fixed = "independent calls, 70 to 72 %", found["fixed"]
    joined, mixture = Bound("≤", 1.25, "×"), Bound("≥", 1.6, "×")
    yield Figure(name, "calls of a fixed test for 80 %", of_fixed, unit="calls", beside=found["computed"])
    yield Figure(name, "joined rule, over that", found["joined"] / of_fixed, joined, experiments)
    yield Figure(name, "usual mixture, over that", found["mixture"] / of_fixed, mixture, experiments)
    few = max(_BATCH, experiments // 10)
    found = clustered.found_by_plan(few, SEED)
    name = "clustered units, by 1.25 × a fixed test's calls"
    yield Figure(name, "joined rule has found the effect", found["joined"], None, few)
    yield Figure(name, "usual mixture has found it", found["mixture"], None, few)
    yield Figure(name, "too few effective clusters by then", found["waiting"], None, few)


def _ratio(experiments: int) -> Iterator[Figure]:
    for shares in ((0.5, 0.5), (0.9, 0.1), (0.8, 0.1, 0.1)):
        alarms, _ = units.ratio_alarms(shares, experiments, SEED)
        name = f"sample ratio {'/'.join(f'{100 * each:.0f}' for each in shares)}"
        yield Figure(name, "false alarms, after each of 20,000 units", alarms, Bound("≤", 0.001), experiments)
    few = max(_BATCH, experiments // 20)
    for true in (0.55, 0.52):
        world = f"sample ratio 50/50, truly {100 * true:.0f}/{100 - 100 * true:.0f}"
        found, at = units.ratio_alarms((0.5, 0.5), few, SEED, true=(true, 1 - true), units=40_000)
        yield Figure(world, "found in 40,000 units", found, None, few)
        yield Figure(world, "units until then, median", at, unit="units")


def _ramp(experiments: int) -> Iterator[Figure]:
    count = 100 * experiments
    changed, left = units.changed_arms(count)
    yield Figure("ramp 1 to 100 %", "units that change their arm", changed, Bound("≤", 0, "units"), count)
    yield Figure("ramp 1 to 100 %", "units that leave the experiment", left, Bound("≤", 0, "units"), count)


def _guards(experiments: int) -> Iterator[Figure]:
    count = max(2, experiments // 50)
    for more in (0.03, 0.1, 0.5):
        found, minutes = guard_delay.breaches(more, count, SEED)
        yield Figure(f"failures +{more:.0%}, margin +1 %", "rolled back within 2 h", found, None, count)
        yield Figure(f"failures +{more:.0%}, margin +1 %", "median until then", minutes, unit="minutes")
    for more, name in ((0.0, "no more failures"), (0.01, "failures +1 %, the margin")):
        found, _ = guard_delay.breaches(more, count, SEED, look_seconds=60)
        yield Figure(name, "rolled back within 2 h, 120 looks", found, Bound("≤", 0.01), count)
    count = max(2, experiments // 100)
    for control in (0.000_001, 0.001):
        found = guard_delay.proven_harmless(control, guard_delay.MARGIN, count, SEED)
        name = f"failures +1 %, the margin, of a control of {control:.1%}"
        yield Figure(name, "taken for harmless within 8 h, 240 looks", found, _FALSE, count)
    found = guard_delay.proven_harmless(0.000_001, 0.0, max(2, count // 10), SEED)
    yield Figure("nothing fails in either arm", "proven harmless within 8 h", found, None, max(2, count // 10))


PARTS: dict[str, Callable[[int], Iterator[Figure]]] = {
    "clustered": _clustered,
    "behind_cache": _behind_cache,
    "power": _power,
    "ratio": _ratio,
    "ramp": _ramp,
    "guards": _guards,
}


def main() -> int:
    """Run what the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments", description=__doc__)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--experiments", type=int, default=10_000, help="of each kind (10,000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    options.experiments = max(_BATCH, options.experiments)
    if unknown := set(options.only) - PARTS.keys():
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    started, progress, figures = time.monotonic(), Console(stderr=True), []
    for name in options.only:
        part_started = time.monotonic()
        figures += list(PARTS[name](options.experiments))
        progress.print(f"{name}: {time.monotonic() - part_started:.0f} s", highlight=False)
    if options.json:
        print(json.dumps([each.to_json() for each in figures], indent=2))
    else:
        _print(figures, options.experiments, time.monotonic() - started)
    return 0 if all(each.is_met in {None, True} for each in figures) else 1


def _print(figures: list[Figure], experiments: int, seconds: float) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    table = Table(title=f"Simulated experiments, {experiments:,} of each kind, {seconds:,.0f} s", title_justify="left")
    for column in ("world", "measured", "figure", "required", "met", "of"):
        table.add_column(column, justify="right" if column in {"figure", "required", "of"} else "left")
    previous = None
    for each in figures:
        if previous is not None and each.world != previous:
            table.add_section()
        table.add_row(each.world if each.world != previous else "", *each.cells())
        previous = each.world
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
