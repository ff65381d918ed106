"""Runs the faults, each in a process of its own, and prints one table."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fnmatch
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from tests.chaos import budget
from tests.chaos.faults import ANSWERS_APART, FAULTS
from tests.chaos.outcome import Outcome, build_table
from tests.chaos.scale import Scale
from tests.chaos.stage import SPINES_VARIABLE, number_of_spines
from tests.support.nursery import SOCKET_VARIABLE, running_nursery
from tests.support.processes import REPOSITORY, LocalProcess

_LONGEST_SECONDS = 400
#: Of those that take longer.
_LONGER = {"lane-large": 1800}
_WIDTH = 150


def main() -> None:
    """Run what the command line names."""
    options = _parse()
    if options.spines > 1:
        os.environ[SPINES_VARIABLE] = str(options.spines)
        _leave_out_answers_apart(options)
    if options.one:
        _run_here(options.one, Scale(options.seed, options.quick))
        return
    progress = Console(stderr=True)
    started = time.monotonic()
    outcomes = []
    are_parsers_good = True
    if options.budget:
        are_parsers_good = budget.fuzz_parsers(options.budget, options.seed)
        until = started + options.budget
        for ran in budget.rounds(run, options.only, options.seed, until=until, at_once=options.at_once):
            _show(progress, ran.name, ran.outcome, ran.seconds)
            outcomes.append((ran.fault, ran.outcome))
    else:
        for name, outcome, seconds in run(options.only, options.seed, is_quick=options.quick, at_once=options.at_once):
            _show(progress, name, outcome, seconds)
            outcomes.append((name, outcome))
    outcomes.sort(key=lambda one: list(FAULTS).index(one[0]))
    if options.json:
        print(json.dumps([{"name": name, **outcome.to_json()} for name, outcome in outcomes], indent=2))
    else:
        console = Console() if Console().is_terminal else Console(width=_WIDTH)
        console.print(build_table([outcome for _, outcome in outcomes]))
        for name, outcome in outcomes:
            if outcome.figures:
                figures = "; ".join(f"{figure} {value}" for figure, value in outcome.figures.items())
                console.print(f"{name}: {figures}", highlight=False, markup=False)
            for remark in outcome.remarks:
                console.print(f"{name}: {remark}", highlight=False, markup=False)
        console.print(f"seed {options.seed}; {time.monotonic() - started:.0f} s", highlight=False)
    sys.exit(not (are_parsers_good and all(outcome.is_as_promised for _, outcome in outcomes)))


def _show(progress: Console, name: str, outcome: Outcome, seconds: float) -> None:
    verdict = "" if outcome.is_as_promised else f", NOT AS PROMISED: {outcome.summary}"
    progress.print(f"{name}: {seconds:.0f} s{verdict}", highlight=False, markup=False)


def run(names: Sequence[str], seed: int, *, is_quick: bool, at_once: int) -> Iterator[tuple[str, Outcome, float]]:
    """Run faults, so many at once; give each one's name, outcome and how long it took, as they end."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        running_nursery(Path(folder)) as nursery,
        concurrent.futures.ThreadPoolExecutor(at_once) as pool,
    ):
        running = {
            pool.submit(_run_apart, name, seed, nursery, Path(folder), is_quick=is_quick): name for name in names
        }
        for future in concurrent.futures.as_completed(running):
            outcome, seconds = future.result()
            yield running[future], outcome, seconds


def _run_apart(name: str, seed: int, nursery: Path, folder: Path, *, is_quick: bool) -> tuple[Outcome, float]:
    """Run one fault in a process of its own: a producer is configured once in its life."""
    started = time.monotonic()
    result = folder / f"{name}.json"
    command = [sys.executable, "-m", "tests.chaos", "--one", name, "--seed", str(seed), *(["--quick"] * is_quick)]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DSPYQ_", "TEST_"))}
    env = inherited | {SOCKET_VARIABLE: str(nursery), "TEST_CHAOS_RESULT": str(result), "PYTHONPATH": str(REPOSITORY)}
    with LocalProcess(name, command, ready_line="", env=env, module="tests.chaos") as process:
        try:
            process.wait(_LONGER.get(name, _LONGEST_SECONDS * number_of_spines()))
        except TimeoutError:
            process.kill()
        if not result.exists():
            outcome = Outcome(name, 0, 0, 0, 0, 0, (), 0, (f"it did not end well: {process.logs()[-3000:]}",))
        else:
            outcome = Outcome.from_json(json.loads(result.read_text()))
        return outcome, time.monotonic() - started


def _run_here(name: str, scale: Scale) -> None:
    outcome = FAULTS[name](scale)
    with contextlib.suppress(KeyError):
        Path(os.environ["TEST_CHAOS_RESULT"]).write_text(json.dumps(outcome.to_json()))
    print(json.dumps(outcome.to_json()))
    sys.stdout.flush()
    os._exit(0)  # this process's producer listens to servers that are gone, and would say so


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", type=_names, default=list(FAULTS), metavar="NAME,…", help="these only; 'lane-*' too")
    parser.add_argument("--seed", type=int, default=1, help="decides every random choice")
    parser.add_argument("--quick", action="store_true", help="the short form, as in make test")
    parser.add_argument(
        "--at-once", type=int, default=budget.AT_ONCE, metavar="NUMBER", help="faults that run at the same time"
    )
    parser.add_argument(
        "--budget", type=budget.duration, metavar="TIME", help="as much as fits in 15m, 1h or 8h, parsers too"
    )
    parser.add_argument("--spines", type=int, default=1, metavar="NUMBER", help="Redis servers that hold the questions")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--one", choices=FAULTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _leave_out_answers_apart(options: argparse.Namespace) -> None:
    left_out = [name for name in options.only if name in ANSWERS_APART]
    options.only = [name for name in options.only if name not in ANSWERS_APART]
    if left_out:
        reason = "they need a Redis of answers apart (result_url), and answers of several servers are with their jobs"
        print(f"left out: {', '.join(left_out)}: {reason}", file=sys.stderr)
    if not options.only:
        sys.exit()


def _names(text: str) -> list[str]:
    patterns = [pattern for pattern in text.split(",") if pattern]
    found = {pattern: fnmatch.filter(FAULTS, pattern) for pattern in patterns}
    unknown = [pattern for pattern, names in found.items() if not names]
    if unknown or not patterns:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there is {', '.join(FAULTS)}")
    return list(dict.fromkeys(name for names in found.values() for name in names))


if __name__ == "__main__":
    main()
