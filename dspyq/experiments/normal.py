"""The normal distribution, also far in its tails, where ``statistics.NormalDist`` returns 0."""

from __future__ import annotations

import math
from statistics import NormalDist

_STANDARD = NormalDist()
_FAR = 30.0  # beyond it, erfc nears the smallest float


def log_tail(z: float) -> float:
    """Return ln P(Z > z)."""
    if z < _FAR:
        return math.log(0.5 * math.erfc(z / math.sqrt(2)))
    return scaled_log_tail(z) - z * z / 2


def scaled_log_tail(z: float) -> float:
    """Return ln P(Z > z) + z² / 2. Far out both are large and cancel, so neither is computed there."""
    if z < _FAR:
        return log_tail(z) + z * z / 2
    # The asymptotic series (Abramowitz and Stegun 26.2.12), within 1e-6 there.
    return -math.log(z * math.sqrt(2 * math.pi)) + math.log1p(-1 / (z * z) + 3 / z**4)


def quantile_above(probability: float) -> float:
    """Return z with P(Z > z) = probability."""
    return -_STANDARD.inv_cdf(probability)
