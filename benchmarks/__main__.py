"""Runs the benchmarks and prints one table. Timing decides nothing: the exit status is 0 if all of them could run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Protocol

from rich.console import Console

from benchmarks import (
    batch,
    bulk,
    door,
    experiment_counting,
    growth,
    hits,
    idle_streams,
    imports,
    litellm_proxy,
    loop_lag,
    many_programs,
    many_spines,
    memory,
    processes,
    processor,
    publishing,
    scale_out,
    sealing,
    single_flight,
    streams,
    sweep,
    tenants,
    throughput,
    unit_costs,
)
from benchmarks.plot import draw
from benchmarks.rows import Row, Skipped, build_table
from benchmarks.simulation import tables as simulation

_WIDTH_OF_A_FILE = 160
#: Benchmarks with a plot, and how its title begins.
_PLOTTED = {"growth": "Processor time by", "simulation": "A fleet's"}


class Benchmark(Protocol):
    """A function that measures."""

    def __call__(self, *, quick: bool) -> list[Row]:
        """Return what it measured; with small sizes where ``quick``, and then the ratios mean little."""


BENCHMARKS: dict[str, Benchmark] = {
    "l1_hit": hits.run_memory,
    "l2_hit": hits.run_redis,
    "miss": publishing.run_miss,
    "many": publishing.run_many,
    "bulk": bulk.run,
    "door": door.run,
    "idle_streams": idle_streams.run,
    "litellm": litellm_proxy.run,
    "single_flight": single_flight.run,
    "throughput": throughput.run,
    "cpu": processor.run,
    "imports": imports.run,
    "loop_lag": loop_lag.run,
    "memory": memory.run,
    "scale_out": scale_out.run,
    "processes": processes.run,
    "sweep": sweep.run,
    "streams": streams.run,
    "tenants": tenants.run,
    "many_programs": many_programs.run,
    "many_spines": many_spines.run,
    "batch": batch.run,
    "experiment_counting": experiment_counting.run,
    "sealing": sealing.run,
    "unit_costs": unit_costs.run,
    "simulation": simulation.run,
    "growth": growth.run,
}


def main() -> int:
    """Run what the command line names, and return the exit status."""
    options = _parse()
    if options.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:21}{(benchmark.__doc__ or '').splitlines()[0]}")
        return 0
    started = time.monotonic()
    progress = Console(stderr=True)
    rows: dict[str, list[Row]] = {}
    for number, name in enumerate(options.only, start=1):
        benchmark_started = time.monotonic()
        try:
            with progress.status(f"{name} ({number} of {len(options.only)})"):
                rows[name] = BENCHMARKS[name](quick=options.quick)
        except Skipped as reason:
            rows[name] = []
            progress.print(f"{name}: skipped, {reason}", highlight=False)
            continue
        except Exception:  # noqa: BLE001 - minutes of the others' results are worth printing
            progress.print_exception()
            continue
        progress.print(f"{name}: {time.monotonic() - benchmark_started:.0f} s", highlight=False)
    plotted = next((name for name in _PLOTTED if name in rows), None)
    if options.plot and plotted:
        options.plot.write_text(draw(rows[plotted], _PLOTTED[plotted]), encoding="utf-8")
    if options.json:
        print(json.dumps([{"benchmark": name, **row.to_json()} for name in rows for row in rows[name]], indent=2))
    else:
        _print([row for found in rows.values() for row in found], time.monotonic() - started)
    return int(len(rows) < len(options.only))


def _print(rows: list[Row], seconds: float) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_A_FILE)
    console.print(build_table(rows))
    for note in dict.fromkeys(f"{row.path}: {row.note}." for row in rows if row.note):
        console.print(note, highlight=False)
    targets = [row.is_met for row in rows if row.target]
    console.print(f"{sum(map(bool, targets))} of {len(targets)} targets met, in {seconds:.0f} s.", highlight=False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=_names, default=list(BENCHMARKS), metavar="NAME,…", help="these only")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all runs")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what growth finds, or the simulation, as SVG")
    parser.add_argument("--list", action="store_true", help="print the names")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there is {', '.join(BENCHMARKS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
