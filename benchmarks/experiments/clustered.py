"""Units that call often and are alike in themselves: false verdicts, and the calls that an effect needs.

Units of lognormal use enter one after the other, 1,000 for 5,000 calls. Each has a rate of its own, with a correlation
of 0.2 between its calls; every call is a question of its own. A plan is over at 60 % of the looks, so both parts of the
rule are tried.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.many import ManySums, Tracks
from dspyq.experiments.mixture import mixture_radius
from dspyq.experiments.placement import BUCKETS
from dspyq.experiments.sequential import SequentialRule

UNITS, CALLS, LOOKS, CORRELATION = 1000, 5000, 50, 0.2
_BATCH = 50
_Z = 1.959964


class World:
    """A batch of experiments whose calls come look by look."""

    def __init__(self, rate: float, effect: float, draw: np.random.Generator, calls: int, control_share: float) -> None:
        self.draw, self.calls = draw, calls
        self.units = units = UNITS * calls // CALLS
        weight = 1 / CORRELATION - 1
        shape = (_BATCH, units)
        self.use = draw.lognormal(0, 1, shape)
        self.entry = draw.uniform(-0.2, 0.8, shape)
        self.arm = (draw.random(shape) >= control_share).astype(int)
        self.rates = draw.beta(rate * weight, (1 - rate) * weight, shape)
        if effect:
            self.rates = np.where(self.arm, self.rates + (1 - self.rates) * effect / (1 - rate), self.rates)
        self.bucket = draw.integers(0, BUCKETS, shape)

    def calls_between(self, start: int, end: int) -> tuple[NDArray, ...]:
        """Return the calls of one look: experiment, arm, buckets of unit and of question, and value."""
        count, now = end - start, (start + end) / 2 / self.calls
        heaped = np.cumsum(np.where(self.entry <= now, self.use, 0.0), 1)
        heaped = heaped / heaped[:, -1:] * (1 - 1e-9) + np.arange(_BATCH)[:, None]
        points = (self.draw.random((_BATCH, count)) + np.arange(_BATCH)[:, None]) * (1 - 1e-12)
        number = np.repeat(np.arange(_BATCH), count)
        unit = np.searchsorted(heaped.ravel(), points.ravel(), side="right")
        unit = np.clip(unit, number * self.units, number * self.units + self.units - 1)
        value = (self.draw.random(_BATCH * count) < self.rates.ravel()[unit]).astype(float)
        question = self.draw.integers(0, BUCKETS, _BATCH * count)
        return number, self.arm.ravel()[unit], self.bucket.ravel()[unit], question, value


def plan(rate: float, calls: int) -> float:
    """Return the effect that a fixed test of these calls finds in 80 %: 2.8 standard errors."""
    calls_of_a_unit = CALLS / UNITS * math.e
    design = 1 + (calls_of_a_unit - 1) * CORRELATION
    return 2.8016 * math.sqrt(rate * (1 - rate) * design / calls * 4)


def false_verdicts(
    rate: float, experiments: int, seed: int, *, control_share: float = 0.5, size: int = 1
) -> dict[str, float]:
    """Return the shares of experiments without an effect that found one, and of those that could have at the end.

    Args:
        rate: The share of calls with a yes.
        experiments: Simulated ones.
        seed: Of the random numbers.
        control_share: The control's share of the units.
        size: Times as many units and calls.
    """
    calls = size * CALLS
    rule = SequentialRule.planned(plan(rate, calls // 2))
    draw = np.random.default_rng(seed)
    found = {"joined": 0, "z by call, each look": 0, "z by unit, one look": 0, "ripe": 0}
    for batch in range(experiments // _BATCH):
        world = World(rate, 0.0, draw, calls, control_share)
        sums, tracks = ManySums(_BATCH, is_yes_or_no=True), Tracks(rule, _BATCH)
        naive = np.zeros(_BATCH, bool)
        for index in range(LOOKS):
            sums.add(*world.calls_between(calls * index // LOOKS, calls * (index + 1) // LOOKS))
            look = sums.look()
            if index == batch % LOOKS:
                sums.check(batch % _BATCH, look)
            tracks.look(index, look.value, look.variance, look.is_ripe)
            with np.errstate(invalid="ignore"):
                naive |= np.abs(look.value) > _Z * np.sqrt(look.by_row)
        found["joined"] += tracks.found
        found["ripe"] += int(look.is_ripe.sum())
        found["z by call, each look"] += int(naive.sum())
        found["z by unit, one look"] += int((np.abs(look.value) > _Z * np.sqrt(look.variance)).sum())
    return {name: count / (experiments // _BATCH * _BATCH) for name, count in found.items()}


def found_by_plan(experiments: int, seed: int, rate: float = 0.7) -> dict[str, float]:
    """Return the shares that found the planned effect, by 1.25 times the calls with which a fixed test finds 80 %.

    A few units of heavy use decide some of these experiments. A fixed test takes no notice; the rule waits, and the
    share of those that wait is returned too.
    """
    looks, calls = 60, 2 * CALLS
    effect = plan(rate, CALLS)
    rule, draw = SequentialRule.planned(effect), np.random.default_rng(seed)
    marks = [calls * (index + 1) // looks for index in range(looks)]
    fixed, waiting, found_at, mixture_at = np.zeros(looks), np.zeros(looks), [], []
    for _ in range(experiments // _BATCH):
        world = World(rate, effect, draw, calls, 0.5)
        sums, tracks = ManySums(_BATCH, is_yes_or_no=True), Tracks(rule, _BATCH)
        mixture = np.full(_BATCH, np.inf)
        for index, mark in enumerate(marks):
            sums.add(*world.calls_between(marks[index - 1] if index else 0, mark))
            look = sums.look()
            tracks.look(mark, look.value, look.variance, look.is_ripe)
            fixed[index] += (look.value > _Z * np.sqrt(look.variance)).sum()
            waiting[index] += (~look.is_ripe).sum()
            radius = np.array([mixture_radius(each, effect, 0.05) for each in look.variance.tolist()])
            mixture[(np.abs(look.value) > radius) & look.is_ripe & np.isinf(mixture)] = mark
        found_at.append(tracks.found_at)
        mixture_at.append(mixture)
    total = experiments // _BATCH * _BATCH
    by = 1.25 * float(np.interp(0.8, fixed / total, marks))
    return {
        "joined": float((np.concatenate(found_at) <= by).mean()),
        "mixture": float((np.concatenate(mixture_at) <= by).mean()),
        "waiting": float(np.interp(by, marks, waiting / total)),
    }
