"""``dspyq experiment simulate``: the calls and days that a plan needs, before anything runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspyq.cli.experiment_status import days_text
from dspyq.console.output import console, print_table
from dspyq.experiments.metrics import is_always_yes_or_no, primary_effect, range_of
from dspyq.experiments.planning import Chance, calls_for_answers, design_effect, rows_needed, simulate, zipf_shares
from dspyq.experiments.sequential import SequentialRule

_SHARES = (0.5, 1.0, 1.5, 2.0)
_HOURS_OF_DAY = 24


@dataclass(frozen=True)
class Assumptions:
    """Assumptions about the traffic.

    Attributes:
        calls_per_day: Calls of the program a day, of all units.
        baseline: The control's mean of the primary metric.
        deviation: The standard deviation of its rows; from the baseline where it follows from that.
        questions: Different questions that are asked; None where no question repeats.
        zipf: The exponent by which their popularity falls.
        calls_per_unit: Calls of a unit.
        correlation: The correlation between rows of a unit.
    """

    calls_per_day: float
    baseline: float
    deviation: float | None = None
    questions: int | None = None
    zipf: float = 1.0
    calls_per_unit: float = 5.0
    correlation: float = 0.05


@dataclass(frozen=True)
class SimulatedPlan:
    """A plan's needs.

    Attributes:
        rows: Rows of the primary metric, of all arms, for 80 % power at the least effect that matters.
        calls: Counted calls that bring them; None where so many answers never come, as there are too few questions.
        days: Days until then, by the ramp; None likewise.
        found: Chances of a verdict where the effect is the least that matters.
        without_effect: The same where there is no effect.
    """

    rows: int
    calls: int | None
    days: float | None
    found: tuple[Chance, ...]
    without_effect: tuple[Chance, ...]


def fault_of_baseline(table: Mapping[str, Any], assumed: Assumptions) -> str | None:
    """Return why no plan can be simulated with this baseline; None where one can."""
    primary, span = table["primary"], _span(table)
    if span is None:
        return None if assumed.baseline > 0 else f"the baseline of {primary} is above 0"
    low, high = span
    if not low <= assumed.baseline <= high:
        return f"{primary} is {low:g} to {high:g}, and so is its baseline"
    if assumed.deviation is None and assumed.baseline in span:
        return f"with every row at {assumed.baseline:g} there is no spread: pass --deviation"
    if primary_effect(table)[0] == "logarithm" and assumed.baseline <= 0:
        return f"a least effect that is a share needs a baseline above 0, not {assumed.baseline:g}"
    return None


def simulate_plan(table: Mapping[str, Any], assumed: Assumptions, *, paths: int = 2000, seed: int = 1) -> SimulatedPlan:
    """Return what a plan needs.

    Args:
        table: The experiment's table.
        assumed: The traffic.
        paths: Simulated experiments.
        seed: Of the random numbers.
    """
    scale, effect = primary_effect(table)
    rule = SequentialRule.planned(effect, alpha=float(table["alpha"]))
    variance = _row_variance(table, assumed) / (assumed.baseline**2 if scale == "logarithm" else 1)
    arms = len(table["arms"])
    rows = rows_needed(rule.information, variance * design_effect(assumed.calls_per_unit, assumed.correlation), arms)
    calls = rows
    if table["primary"].startswith("answer.") and assumed.questions is not None:
        calls = calls_for_answers(rows, zipf_shares(assumed.questions, assumed.zipf), caches=arms)
    is_reachable = math.isfinite(calls)
    return SimulatedPlan(
        rows=math.ceil(rows),
        calls=math.ceil(calls) if is_reachable else None,
        days=_days(table["ramp"], calls, assumed.calls_per_day) if is_reachable else None,
        found=tuple(simulate(rule, effect, shares=_SHARES, paths=paths, seed=seed)),
        without_effect=tuple(simulate(rule, 0.0, shares=_SHARES, paths=paths, seed=seed)),
    )


def _row_variance(table: Mapping[str, Any], assumed: Assumptions) -> float:
    """Return the variance of a row: as assumed, of a yes or no, or of one as spread as its mean."""
    if assumed.deviation is not None:
        return assumed.deviation**2
    span = _span(table)
    if span is None:
        return assumed.baseline**2
    low, high = span
    return max(0.0, (assumed.baseline - low) * (high - assumed.baseline))  # the most for this mean


def _span(table: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the range of the primary metric's rows; None where they have none."""
    return (0.0, 1.0) if is_always_yes_or_no(table["primary"]) else range_of(table["primary"], table)


def _days(ramp: Sequence[Mapping[str, Any]], calls: float, calls_per_day: float) -> float:
    """Return the days until so many calls are counted, by the steps of the ramp; the last one goes on."""
    days = 0.0
    for step in ramp:
        counted_a_day = calls_per_day * float(step["coverage"])
        step_days = math.inf if step["hours"] is None else float(step["hours"]) / _HOURS_OF_DAY
        if step is ramp[-1] or counted_a_day * step_days >= calls:
            return days + calls / counted_a_day
        calls -= counted_a_day * step_days
        days += step_days
    return math.inf


def print_plan(plan: SimulatedPlan, table: Mapping[str, Any]) -> None:
    """Print a plan's needs."""
    effect = table["minimum_effect"] if isinstance(table["minimum_effect"], str) else f"{table['minimum_effect']:g}"
    arms = len(table["arms"])
    console.print(f"{table['name']}: {table['primary']}, least effect {effect}, {arms} arms", highlight=False)
    if plan.calls is None:
        needs = f"{plan.rows:,} answers: more than there are questions. Set draws, or a larger effect"
    else:
        time = "" if plan.days is None else f", {days_text(plan.days)} by the ramp"
        needs = f"{plan.rows:,} rows for 80 % power: {plan.calls:,} counted calls{time}"
    console.print(f"It needs {needs}", highlight=False)
    rows = [
        [f"{one.share:.0%}", f"{one.found:.0%}", f"{one.settled:.0%}", f"{none.found:.1%}", f"{none.settled:.0%}"]
        for one, none in zip(plan.found, plan.without_effect, strict=True)
    ]
    titles = ["of the plan", "effect found", "settled", "no effect: found", "settled as none"]
    print_table("Chances of a verdict by then", titles, rows)


def plan_as_json(plan: SimulatedPlan, assumed: Assumptions) -> dict[str, Any]:
    """Return all numbers of a plan."""
    found = dataclasses.asdict(plan) | {
        "found": [each._asdict() for each in plan.found],
        "without_effect": [each._asdict() for each in plan.without_effect],
    }
    return found | {"assumed": dataclasses.asdict(assumed)}
