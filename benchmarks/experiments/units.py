"""Units: the sample ratio looked at after every one, and a ramp over a million."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from dspyq.experiments.placement import PlacingState, place
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE, STRENGTH, sample_ratio_log_evidence

COVERAGES = (0.01, 0.02, 0.05, 0.2, 0.5, 1.0)


def ratio_alarms(
    shares: tuple[float, ...], experiments: int, seed: int, true: tuple[float, ...] | None = None, units: int = 20_000
) -> tuple[float, float]:
    """Return the share of experiments that ever looked broken, and the median number of units until then.

    Each unit multiplies the e-value by its probability under the prior so far, over its share; the last value of each
    experiment is held against the package's formula.

    Raises:
        ArithmeticError: If they differ.
    """
    draw = np.random.default_rng(seed)
    prior = STRENGTH * np.array(shares)
    before = STRENGTH + np.arange(units)
    broken_at = np.full(experiments, np.inf)
    for index in range(experiments):
        arms = np.searchsorted(np.cumsum(true or shares)[:-1], draw.random(units), side="right")
        log_evidence = -np.log(before)
        counts = []
        for arm, share in enumerate(shares):
            mine = arms == arm
            count = np.cumsum(mine)
            log_evidence[mine] += np.log((prior[arm] + count[mine] - 1) / share)
            counts.append(int(count[-1]))
        log_evidence = np.cumsum(log_evidence)
        if not math.isclose(log_evidence[-1], sample_ratio_log_evidence(counts, shares), abs_tol=1e-6):
            raise ArithmeticError(f"{log_evidence[-1]} is not {sample_ratio_log_evidence(counts, shares)}")
        broken = log_evidence >= BROKEN_LOG_EVIDENCE
        if broken.any():
            broken_at[index] = broken.argmax() + 1
    return float(np.isfinite(broken_at).mean()), float(np.quantile(broken_at, 0.5, method="lower"))


def changed_arms(units: int) -> tuple[int, int]:
    """Return the units that change their arm in a ramp from 1 to 100 %, and those that left the experiment."""
    state = PlacingState("qa/november", "running", ("control", "challenger"), 0.0, "control")
    steps = [state._replace(coverage=each) for each in COVERAGES]
    changed = left = 0
    for number in range(units):
        unit = f"user-{number}"
        places = [place(each, unit) for each in steps]
        arms = [each.variant for each in places if each is not None and each.is_counted]
        changed += len(set(arms)) > 1
        left += any(a is not None and b is not None and a.is_counted > b.is_counted for a, b in pairwise(places))
    return changed, left
