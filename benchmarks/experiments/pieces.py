"""Pieces of a run, as many at once as there are processors, with their progress and their table."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.experiments.bounds import Bound, Figure

SEED = 20261130
_WIDTH_OF_A_FILE = 160


class Piece(NamedTuple):
    """A part of a run that needs no other.

    Attributes:
        name: As the progress shows it.
        measure: Returns its figures; another process calls it, so it is a function of a module, or a partial of one.
    """

    name: str
    measure: Callable[[], Sequence[Figure]]


#: Pieces by the name of the part; the number of experiments decides how long they take.
Parts = Mapping[str, Callable[[int], list[Piece]]]


def main(parts: Parts, *, module: str, title: str, experiments: int, fewest: int = 1) -> int:
    """Run the parts that the command line names, print their table, and return the exit status.

    Args:
        parts: The parts there are.
        module: The module that is run.
        title: Of the table.
        experiments: Experiments of each kind, unless the command line states another number.
        fewest: The least number of them.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=title)
    parser.add_argument("--only", type=lambda names: names.split(","), default=list(parts), help=", ".join(parts))
    parser.add_argument("--experiments", type=int, default=experiments, help=f"of each kind ({experiments:,})")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="processes (one for each processor)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if unknown := set(options.only) - parts.keys():
        parser.error(f"--only: no {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    if options.experiments < fewest or options.at_once < 1:
        parser.error(f"--experiments is at least {fewest}, and --at-once at least 1")
    started = time.monotonic()
    pieces = [piece for name in options.only for piece in parts[name](options.experiments)]
    figures = run(pieces, at_once=options.at_once)
    if options.json:
        print(json.dumps([each.to_json() for each in figures], indent=2))
    else:
        _print(figures, f"{title}, {time.monotonic() - started:,.0f} s")
    return 0 if all(each.is_met in {None, True} for each in figures) else 1


def run(pieces: Sequence[Piece], *, at_once: int) -> list[Figure]:
    """Run pieces in processes of their own, show each one's end, and return all figures in the order of the pieces."""
    progress, started, found = Console(stderr=True, width=_WIDTH_OF_A_FILE), time.monotonic(), {}
    apart = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=apart) as pool:
        waiting = {pool.submit(_measured, piece): index for index, piece in enumerate(pieces)}
        for number, future in enumerate(as_completed(waiting), start=1):
            index = waiting[future]
            try:
                found[index], seconds = future.result()
            except Exception as error:  # noqa: BLE001 - the others' figures are worth as much
                traceback.print_exception(error)
                failed = f"ended with {type(error).__name__}"
                found[index], seconds = [Figure(pieces[index].name, failed, 1, Bound("≤", 0, ""))], math.nan
            since = time.monotonic() - started
            ended = f"{since:5.0f} s  {number} of {len(pieces)}: {pieces[index].name} ({seconds:.0f} s)"
            lines = [f"         {_line(each)}" for each in found[index]]
            progress.print("\n".join([ended, *lines]), highlight=False, markup=False, soft_wrap=True)
    return [figure for index in sorted(found) for figure in found[index]]


def _line(figure: Figure) -> str:
    measured, value, bound, _, _ = figure.cells()
    required = f" ({bound}{'' if figure.is_met else ', NOT MET'})" if bound else ""
    return f"{measured}: {value}{required}"


def _measured(piece: Piece) -> tuple[list[Figure], float]:
    started = time.monotonic()
    return list(piece.measure()), time.monotonic() - started


def _print(figures: list[Figure], title: str) -> None:
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    table = Table(title=title, title_justify="left")
    for column in ("world", "measured", "figure", "required", "met", "of"):
        table.add_column(column, justify="right" if column in {"figure", "required", "of"} else "left")
    previous = None
    for each in figures:
        if previous is not None and each.world != previous:
            table.add_section()
        table.add_row(each.world if each.world != previous else "", *each.cells())
        previous = each.world
    console.print(table)
