"""The bound that is tightest for what an experiment was planned for: constant on the scale of a Brownian motion.

With information I = 1 / V and estimate δ, δI is a Brownian motion in time I. Up to a planned information J,
P(sup |δI| > c √J) ≤ 4 (1 - Φ(c)), by reflection (Siegmund, "Sequential Analysis", 1985, chapter 3), at any number of
looks. O'Brien and Fleming's group-sequential bounds (Biometrics 35, 1979) tend to it as looks become many.
"""

from __future__ import annotations

import math

from dspyq.experiments.normal import log_tail, quantile_above

#: The planned information over that of a fixed test: with 50 looks for a fixed test's rows, 80 % are found by then.
PLAN_FACTOR = 1.2


def critical_value(alpha: float) -> float:
    """Return c: 4 (1 - Φ(c)) = alpha."""
    return quantile_above(alpha / 4)


def planned_radius(variance: float, planned_information: float, alpha: float) -> float:
    """Return half the width of the interval; infinite once the information is beyond the plan."""
    if not 0 < variance < math.inf or 1 / variance > planned_information:
        return math.inf
    return critical_value(alpha) * math.sqrt(planned_information) * variance


def planned_log_p(effect: float, variance: float, planned_information: float) -> float:
    """Return ln of the least alpha at which the planned bound excludes no effect; at most 0."""
    if not 0 < variance < math.inf or 1 / variance > planned_information:
        return 0.0
    return min(0.0, math.log(4) + log_tail(abs(effect) / (variance * math.sqrt(planned_information))))


def fixed_information(effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the information 1 / V with which one look finds an effect with this power: ((z_α/2 + z_β) / effect)²."""
    return ((quantile_above(alpha / 2) + quantile_above(1 - power)) / effect) ** 2


def planned_information(minimum_effect: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Return the information up to which the planned bound holds; frozen when the experiment starts."""
    return PLAN_FACTOR * fixed_information(minimum_effect, alpha=alpha, power=power)
