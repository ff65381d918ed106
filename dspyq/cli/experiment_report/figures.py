"""Figures of metrics as texts: each in its own unit, and differences with their sign."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dspyq.cli.report.texts import money, short_duration
from dspyq.experiments.look import MetricFinding

_COSTS = ("answer.cost", "call.paid")
_TIMES = ("answer.time", "call.waited")
_SHARES = ("answer.slow", "call.failed", "call.fallback", "call.slow_wait", "call.hit")
_NONE = "–"
#: A space at which no line ends.
_SPACE = "\u00a0"
_MOST_DIGITS = 6
#: Powers of ten from which on three decimals are enough.
_TINY = -3


def figure(metric: str, value: float | None) -> str:
    """Return a metric's value."""
    if value is None or not math.isfinite(value):
        return _NONE
    if metric in _COSTS:
        return money(value)
    if metric in _TIMES:
        return short_duration(value)
    if _is_share(metric):
        return percents(value)
    return f"{value:,.0f}" if metric == "answer.tokens" else f"{value:,.{_digits(value)}f}"


def percents(share: float, digits: int = 2) -> str:
    """Return a share."""
    return f"{share * 100:,.{digits}f}{_SPACE}%"


def difference(metric: str, value: float | None, *, is_relative: bool) -> str:
    """Return a difference of a metric, with its sign; a share of the control's mean where it is relative."""
    if value is None or not math.isfinite(value):
        return _NONE
    sign = "+" if value >= 0 else "−"
    amount = abs(value)
    if is_relative:
        return f"{sign}{percents(amount, 1)}"
    if _is_share(metric):
        return f"{sign}{percents(amount)[:-1]}pp"  # points of a share, not a share of a share
    return sign + figure(metric, amount)


def interval(metric: str, found: MetricFinding) -> str:
    """Return the interval of a metric's effect; where the looks' intervals have nothing in common, that."""
    if found.low is None or found.high is None:
        return _NONE
    if found.low > found.high:
        return "the looks contradict each other"
    low, high = (
        difference(metric, shown(found, end), is_relative=is_relative(found)) for end in (found.low, found.high)
    )
    return f"{low} to {high}"


def effect(metric: str, found: MetricFinding) -> str:
    """Return a metric's effect."""
    return difference(metric, shown(found, found.value), is_relative=is_relative(found))


def is_relative(found: MetricFinding) -> bool:
    """Return True if the effect is shown as a share of the control's mean."""
    return found.scale == "logarithm"


def shown(found: MetricFinding, value: float | None) -> float | None:
    """Return an effect as it is shown: a logarithm as a share of the control's mean."""
    return value if value is None or not is_relative(found) else math.expm1(value)


def margin(found: MetricFinding) -> float | None:
    """Return the guard's margin as an effect: above 0 where higher is worse."""
    if found.guard is None:
        return None
    return found.guard.margin if found.higher_is_worse else -found.guard.margin


def stated_difference(stated: Any) -> str:
    """Return a difference as the plan states it."""
    return stated if isinstance(stated, str) else f"{stated:g}"


def evidence(log_evidence: float) -> str:
    """Return the always-valid p-value."""
    p_value = math.exp(-log_evidence)
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"  # noqa: PLR2004 - what a table needs


def title(metric: str, table: Mapping[str, Any]) -> str:
    """Return a metric's name, with its threshold where it has one."""
    seconds = next((guard["seconds"] for guard in table["guards"] if guard["metric"] == metric), None)
    return metric if seconds is None else f"{metric} ({seconds:g}{_SPACE}s)"


def _is_share(metric: str) -> bool:
    return metric in _SHARES or metric.startswith("response.")


def _digits(value: float) -> int:
    """Return the decimals of a score or a judgement: three, fewer of large ones, more of tiny ones."""
    size = math.floor(math.log10(abs(value))) if value else 0
    return min(_MOST_DIGITS, max(0, 3 - size if size > 0 else 3 if size >= _TINY else 1 - size))
