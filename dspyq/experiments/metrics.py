"""Facts about metrics: the direction of harm, the values they may have, and the scale on which arms are compared."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dspyq.config.experiments import HIGHER_IS_WORSE, parse_difference
from dspyq.experiments.guards import BREACH_ALPHA, GuardRule
from dspyq.experiments.sequential import SequentialRule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspyq.experiments.guards import Worse
    from dspyq.experiments.jackknife import Scale
    from dspyq.experiments.sums import ArmSums

#: Money, time and tokens: positive, and of very different sizes, so that their ratio is what compares.
_AMOUNTS = frozenset({"answer.cost", "answer.time", "answer.tokens", "call.waited", "call.paid"})
_YES_OR_NO = frozenset({"answer.slow", "call.failed", "call.fallback", "call.slow_wait", "call.hit"})
#: The least effects that matter of metrics for which the plan states none: parts of a range, of 1, or of the control's.
_SECONDARY_EFFECT, _SECONDARY_RATIO = 0.02, 0.1


def worse_direction(metric: str) -> Worse:
    """Return the direction in which a metric becomes worse."""
    return "higher" if metric in HIGHER_IS_WORSE else "lower"


def is_yes_or_no(metric: str, table: Mapping[str, Any], *arms: ArmSums) -> bool:
    """Return True if every row of a metric is 0 or 1: by its kind, or, of a score of 0 to 1, by its squares."""
    if is_always_yes_or_no(metric):
        return True
    if range_of(metric, table) != (0, 1):
        return False
    return all(arm.rows is not None and abs(arm.rows.squares - arm.rows.total) < 1e-9 * arm.rows.rows for arm in arms)


def is_always_yes_or_no(metric: str) -> bool:
    """Return True if the kind of a metric has no other values than 0 and 1."""
    return metric in _YES_OR_NO or metric.startswith("response.")


def range_of(metric: str, table: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the least and the greatest value of a score or a judgement; None for other metrics."""
    family, _, name = metric.partition(".")
    stated = table["feedback"] if family == "feedback" else table["scores"] if family != "call" else {}
    return (stated[name]["low"], stated[name]["high"]) if name in stated and family != "response" else None


def primary_effect(table: Mapping[str, Any]) -> tuple[Scale, float]:
    """Return the scale of the primary metric and the least effect that matters on it, as the plan states them."""
    stated = parse_difference(table["minimum_effect"])
    if not stated.is_relative:
        return "difference", stated.value
    return "logarithm", math.log1p(stated.value)


def secondary_rule(metric: str, table: Mapping[str, Any]) -> tuple[Scale, SequentialRule]:
    """Return the scale and the rule of a metric that decides nothing."""
    alpha = float(table["alpha"])
    if metric in _AMOUNTS:
        return "logarithm", SequentialRule.planned(math.log1p(_SECONDARY_RATIO), alpha=alpha)
    low, high = range_of(metric, table) or (0.0, 1.0)
    return "difference", SequentialRule.planned(_SECONDARY_EFFECT * (high - low), alpha=alpha)


def guard_rules(table: Mapping[str, Any]) -> dict[str, GuardRule]:
    """Return the rule of each guard, by metric; each challenger is held to all of them."""
    comparisons = len(table["guards"]) * (len(table["arms"]) - 1)
    rules = {}
    for guard in table["guards"]:
        margin = parse_difference(guard["margin"])
        rules[guard["metric"]] = GuardRule(
            margin=margin.value,
            worse=worse_direction(guard["metric"]),
            is_relative=margin.is_relative,
            alpha=BREACH_ALPHA / comparisons,
        )
    return rules


def estimands(metric: str, table: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the metrics that weigh a score by answer and by traffic; None for a metric that is no score."""
    family, _, name = metric.partition(".")
    if family in ("answer", "delivered") and name in table["scores"]:
        return f"answer.{name}", f"delivered.{name}"
    return None
