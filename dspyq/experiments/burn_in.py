"""Looks that come too early: a normal limit needs rows, units and clusters before it holds.

With arms of one part in ten, rates of 5 % and no burn-in, false findings of any rule here are about 30 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from dspyq.experiments.effects import MetricEffect
from dspyq.experiments.sums import ArmSums

LEAST_CLUSTERS = 50
LEAST_OUTCOMES = 10
LEAST_ROWS = 50
LEAST_EFFECTIVE_CLUSTERS = 20

Unripe = Literal["few units", "few questions", "few outcomes", "few rows", "no spread", "few independent rows"]


def unripe(control: ArmSums, challenger: ArmSums, effect: MetricEffect, *, is_yes_or_no: bool) -> Unripe | None:
    """Return the first reason why a look does not count yet; None where it does.

    Args:
        control: The control's sums.
        challenger: The challenger's sums.
        effect: The effect of the look.
        is_yes_or_no: True where every row's value is 0 or 1. The rarer of both must have come up 10 times in each
            arm then; other metrics need 50 rows and a spread.
    """
    for arm in (control, challenger):
        for reason in _faults(arm, is_yes_or_no=is_yes_or_no):
            return reason
    if not 0 < effect.variance < math.inf:
        return "no spread"
    return "few independent rows" if effect.effective_clusters < LEAST_EFFECTIVE_CLUSTERS else None


def row_count(arm: ArmSums) -> float:
    """Return the number of rows."""
    return math.fsum(arm.by_question.denominators)


def _faults(arm: ArmSums, *, is_yes_or_no: bool) -> Iterator[Unripe]:
    if arm.by_unit is not None and _used(arm.by_unit.denominators) < LEAST_CLUSTERS:
        yield "few units"
    if _used(arm.by_question.denominators) < LEAST_CLUSTERS:
        yield "few questions"
    if row_count(arm) < LEAST_ROWS:
        yield "few rows"
    if is_yes_or_no and _rarer(arm) < LEAST_OUTCOMES:
        yield "few outcomes"
    if arm.rows is not None and arm.rows.squares * arm.rows.rows <= arm.rows.total**2:
        yield "no spread"


def _used(denominators: tuple[float, ...]) -> int:
    return sum(map(bool, denominators))


def _rarer(arm: ArmSums) -> float:
    """Return the rows of the rarer outcome of a yes or no."""
    yes = math.fsum(arm.by_question.numerators)
    return max(0.0, min(yes, row_count(arm) - yes))
