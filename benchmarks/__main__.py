"""Runs the benchmarks and prints one table. Timing decides nothing: the exit status is 0 if all of them could run."""

from __future__ import annotations

import argparse
import json
import time
from typing import Protocol

from rich.console import Console

from benchmarks import hits, imports, memory, processor, publishing, single_flight, throughput
from benchmarks.rows import Row, build_table


class Benchmark(Protocol):
    """A function that measures."""

    def __call__(self, *, quick: bool) -> list[Row]:
        """Return what it measured; with small sizes where ``quick``, and then the ratios mean little."""


BENCHMARKS: dict[str, Benchmark] = {
    "l1_hit": hits.run_memory,
    "l2_hit": hits.run_redis,
    "miss": publishing.run_miss,
    "many": publishing.run_many,
    "single_flight": single_flight.run,
    "throughput": throughput.run,
    "cpu": processor.run,
    "imports": imports.run,
    "memory": memory.run,
}


def main() -> None:
    """Run what the command line names."""
    options = _parse()
    if options.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name:15}{(benchmark.__doc__ or '').splitlines()[0]}")
        return
    progress = Console(stderr=True)
    started = time.monotonic()
    rows: dict[str, list[Row]] = {}
    for number, name in enumerate(options.only, start=1):
        with progress.status(f"{name} ({number} of {len(options.only)})"):
            benchmark_started = time.monotonic()
            rows[name] = BENCHMARKS[name](quick=options.quick)
        progress.print(f"{name}: {time.monotonic() - benchmark_started:.0f} s")
    if options.json:
        print(json.dumps([{"benchmark": name, **row.to_json()} for name in rows for row in rows[name]], indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    table = [row for found in rows.values() for row in found]
    console.print(build_table(table))
    for note in dict.fromkeys(f"{row.path}: {row.note}" for row in table if row.note):
        console.print(note, highlight=False)
    missed = sum(row.is_met is False for row in table)
    console.print(f"{missed} targets missed; {time.monotonic() - started:.0f} s", highlight=False)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=_names, default=list(BENCHMARKS), metavar="NAME,…", help="these only")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that all runs")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--list", action="store_true", help="print the names")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there is {', '.join(BENCHMARKS)}")
    return names


if __name__ == "__main__":
    main()
