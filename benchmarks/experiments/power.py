"""Calls that the planned effect needs where calls are independent: 70 % that become 72 %.

There are 50 looks for the calls of a fixed test. Each experiment is two binomial walks; the fixed test, the joined rule
and the mixture alone see the same ones.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.experiments.many import Tracks
from dspyq.experiments.mixture import mixture_radius
from dspyq.experiments.planned import fixed_information
from dspyq.experiments.planning import rows_needed
from dspyq.experiments.sequential import SequentialRule

RATE, EFFECT, LOOKS = 0.7, 0.02, 50
_BATCH = 1000
_Z = 1.959964


def calls_for_power(experiments: int, seed: int, effect: float = EFFECT) -> dict[str, float]:
    """Return the calls of both arms for 80 %: of a fixed test, of the joined rule, of the mixture alone."""
    rates = np.array([RATE, RATE + effect])
    spread = float((rates * (1 - rates)).mean())
    calls = rows_needed(fixed_information(EFFECT), spread)
    step = round(calls / LOOKS / 2)
    rule, draw = SequentialRule.planned(EFFECT), np.random.default_rng(seed)
    looks = 2 * LOOKS + LOOKS // 2
    fixed, joined, mixture = np.zeros(looks), [], []
    for _ in range(max(1, experiments // _BATCH)):
        yes, tracks, first = np.zeros((_BATCH, 2)), Tracks(rule, _BATCH), np.full(_BATCH, np.inf)
        for index in range(looks):
            rows = step * (index + 1)
            yes += draw.binomial(step, rates, (_BATCH, 2))
            means = yes / rows
            value, variance = means[:, 1] - means[:, 0], (means * (1 - means)).sum(1) / (rows - 1)
            tracks.look(2 * rows, value, variance, np.full(_BATCH, index > 0))
            fixed[index] += (value > _Z * np.sqrt(variance)).sum()
            radius = np.array([mixture_radius(each, EFFECT, 0.05) for each in variance.tolist()])
            first[(np.abs(value) > radius) & np.isinf(first)] = 2 * rows
        joined.append(tracks.found_at)
        mixture.append(first)
    marks = 2 * step * np.arange(1, looks + 1)
    share = fixed / (_BATCH * max(1, experiments // _BATCH))
    return {
        "fixed": float(np.interp(0.8, share, marks)),
        "joined": float(np.quantile(np.concatenate(joined), 0.8, method="lower")),
        "mixture": float(np.quantile(np.concatenate(mixture), 0.8, method="lower")),
        "computed": calls if math.isfinite(calls) else math.nan,
    }
