"""Rounds of faults within a time: first each in its short form, then in full, with another seed in each round."""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tests.chaos.durations import SECONDS
from tests.chaos.outcome import Outcome
from tests.support.processes import REPOSITORY

#: Faults that run at the same time: they wait more than they compute. With as many, their durations were recorded.
AT_ONCE = 3
_UNITS = {"s": 1, "m": 60, "h": 3600}
#: The part of the time in which parsers are fuzzed: two minutes of fifteen.
FUZZED_SHARE = 2 / 15
#: A guess for a fault whose duration nobody has recorded, in its short form and in full.
_GUESSED_SECONDS = {True: 45.0, False: 150.0}

#: Of some faults, with a seed, in short or in full, so many at once: name, outcome and duration of each.
Run = Callable[..., Iterator[tuple[str, Outcome, float]]]


class Ran(NamedTuple):
    """A fault that was run.

    Attributes:
        name: Its name, with its round's form and seed.
        fault: Its name alone.
        outcome: What came of it.
        seconds: How long it took.
    """

    name: str
    fault: str
    outcome: Outcome
    seconds: float


def duration(text: str) -> float:
    """Return the seconds of a duration such as 15m, 1h or 90s.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    found = re.fullmatch(r"(\d+)([smh])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is no duration: write 15m, 1h or 8h")
    return int(found[1]) * _UNITS[found[2]]


def fuzz_parsers(budget_seconds: float, seed: int) -> bool:
    """Fuzz the parsers for their part of the time; return True if nothing was found."""
    minutes = str(budget_seconds * FUZZED_SHARE / 60)
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", minutes, "--seed", str(seed)]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode == 0


def rounds(run: Run, names: Sequence[str], seed: int, *, until: float, at_once: int) -> Iterator[Ran]:
    """Run faults, in another order and with another seed each round, until no further one would end in time.

    Those that take about as long run at the same time, so that none waits for another.

    Args:
        run: Runs some.
        names: The faults.
        seed: Of the first round.
        until: The monotonic second of the end.
        at_once: How many at the same time.
    """
    took: dict[tuple[str, bool], float] = {}
    number = 0
    while True:
        is_quick = number == 0
        groups = _groups(names, at_once, is_quick=is_quick, took=took)
        for chosen in random.Random(seed + number).sample(groups, len(groups)):  # noqa: S311 - it is to repeat
            expected = max(_expected(name, is_quick=is_quick, took=took) for name in chosen)
            if time.monotonic() + expected > until:
                return
            form = f"{'short' if is_quick else 'full'}, seed {seed + number}"
            for name, outcome, seconds in run(chosen, seed + number, is_quick=is_quick, at_once=at_once):
                took[name, is_quick] = seconds
                yield Ran(f"{name} ({form})", name, outcome, seconds)
        number += 1


def round_seconds(names: Sequence[str], at_once: int, *, is_quick: bool) -> float:
    """Return how long a round of faults takes by their recorded durations."""
    groups = _groups(names, at_once, is_quick=is_quick, took={})
    return sum(max(_expected(name, is_quick=is_quick, took={}) for name in group) for group in groups)


def _groups(
    names: Sequence[str], at_once: int, *, is_quick: bool, took: Mapping[tuple[str, bool], float]
) -> list[list[str]]:
    """Return faults in groups that run at the same time: of like durations."""
    ordered = sorted(names, key=lambda name: _expected(name, is_quick=is_quick, took=took))
    return [ordered[start : start + at_once] for start in range(0, len(ordered), at_once)]


def _expected(name: str, *, is_quick: bool, took: Mapping[tuple[str, bool], float]) -> float:
    recorded = SECONDS.get(name, (None, None))[not is_quick]
    return took.get((name, is_quick), recorded or _GUESSED_SECONDS[is_quick])
