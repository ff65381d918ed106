"""Many experiments at once: their sums and effects in numpy, held against the package's own at every batch.

The rule that decides is the package's. numpy computes the effects: 500,000 looks take minutes so, and hours without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dspyq.experiments.burn_in import (
    LEAST_CLUSTERS,
    LEAST_EFFECTIVE_CLUSTERS,
    LEAST_OUTCOMES,
    LEAST_ROWS,
    unripe,
)
from dspyq.experiments.effects import MetricEffect, metric_effect
from dspyq.experiments.jackknife import Scale
from dspyq.experiments.placement import BUCKETS
from dspyq.experiments.sequential import SequentialRule, Track, advance
from dspyq.experiments.sums import ArmSums, ClusterSums, RowSums

Floats = NDArray[np.float64]


@dataclass
class Look:
    """Effects of many experiments at one look; each array has one value for each."""

    value: Floats
    variance: Floats
    effective_clusters: Floats
    by_unit: Floats
    by_question: Floats
    by_row: Floats
    question_clusters: Floats
    is_ripe: NDArray[np.bool_]


class ManySums:
    """Sums of one metric in two arms, of many experiments."""

    def __init__(self, count: int, *, is_yes_or_no: bool, scale: Scale = "difference") -> None:
        self.count, self.is_yes_or_no, self.scale = count, is_yes_or_no, scale
        self.sums = np.zeros((2, 2, count, 2, BUCKETS))  # unit or question, numerator or denominator, experiment, arm
        self.rows = np.zeros((3, count, 2))

    def add(self, number: NDArray, arm: NDArray, unit: NDArray, question: NDArray, value: Floats) -> None:
        """Add rows, each of an experiment, an arm, a bucket of its unit and of its question, and a value."""
        cell = number * 2 + arm
        size = self.count * 2
        for index, bucket in enumerate((unit, question)):
            code = cell * BUCKETS + bucket
            shape = (self.count, 2, BUCKETS)
            self.sums[index, 0] += np.bincount(code, weights=value, minlength=size * BUCKETS).reshape(shape)
            self.sums[index, 1] += np.bincount(code, minlength=size * BUCKETS).reshape(shape)
        for index, weights in enumerate((None, value, value * value)):
            self.rows[index] += np.bincount(cell, weights=weights, minlength=size).reshape(self.count, 2)

    def look(self) -> Look:
        """Return what `metric_effect` and `unripe` return for each."""
        rows, totals, squares = self.rows
        with np.errstate(all="ignore"):
            means = totals / rows
            deviations, used = [], []
            for numerators, denominators in self.sums:
                found = numerators - means[:, :, None] * denominators
                left = rows[:, :, None] - denominators
                np.divide(found, left, out=found)
                if self.scale == "logarithm":
                    found = -np.log1p(-found / means[:, :, None])
                found[(left <= 0) & (denominators > 0)] = math.inf
                deviations.append(found)
                used.append(denominators > 0)
            units, questions = deviations
            square = units * units
            in_use = used[0].sum(2)
            by_unit = ((in_use - 1) / in_use * square.sum(2)).sum(1)
            unit_clusters = square.sum((1, 2)) ** 2 / np.einsum("eab,eab->e", square, square)
            square = (questions[:, 1] - questions[:, 0]) ** 2
            together = used[1].any(1).sum(1)
            by_question = (together - 1) / together * square.sum(1)
            question_clusters = square.sum(1) ** 2 / np.einsum("eb,eb->e", square, square)
            by_rows = (squares - totals * means) / (rows * (rows - 1))
            by_row = (by_rows / means**2 if self.scale == "logarithm" else by_rows).sum(1)
            value = np.log(means[:, 1] / means[:, 0]) if self.scale == "logarithm" else means[:, 1] - means[:, 0]
            variance = np.maximum(by_unit + by_question - by_row, np.maximum(by_unit, by_question))
            rarer = np.minimum(totals, rows - totals).min(1)
            is_ripe = (
                (in_use.min(1) >= LEAST_CLUSTERS)
                & (used[1].sum(2).min(1) >= LEAST_CLUSTERS)
                & (rows.min(1) >= LEAST_ROWS)
                & ((rarer >= LEAST_OUTCOMES) if self.is_yes_or_no else True)
                & (squares * rows > totals**2).all(1)
                & np.isfinite(variance)
                & (variance > 0)
                & (np.minimum(unit_clusters, question_clusters) >= LEAST_EFFECTIVE_CLUSTERS)
            )
        return Look(
            value,
            variance,
            np.minimum(unit_clusters, question_clusters),
            by_unit,
            by_question,
            by_row,
            question_clusters,
            is_ripe,
        )

    def arm(self, number: int, arm: int) -> ArmSums:
        """Return the package's own sums of one arm."""
        units, questions = (
            ClusterSums(*(tuple(self.sums[index, part, number, arm].tolist()) for part in (0, 1))) for index in (0, 1)
        )
        return ArmSums(questions, units, RowSums(*self.rows[:, number, arm].tolist()))

    def check(self, number: int, look: Look) -> None:
        """Compare one experiment's look with the package's.

        Raises:
            ArithmeticError: If they differ.
        """
        control, challenger = self.arm(number, 0), self.arm(number, 1)
        effect = metric_effect(control, challenger, self.scale)
        if effect is None:
            return
        ours = look.value[number], look.variance[number], look.effective_clusters[number]
        has_spread = effect.effective_clusters > 0 and math.isfinite(effect.variance)
        if has_spread and not np.allclose(ours, effect[2:], rtol=1e-9, atol=1e-13):
            raise ArithmeticError(f"numpy's effect is {ours}, the package's {effect}")
        reason = unripe(control, challenger, effect, is_yes_or_no=self.is_yes_or_no)
        if bool(look.is_ripe[number]) != (reason is None):
            raise ArithmeticError(f"numpy's look counts: {look.is_ripe[number]}; the package's: {reason}")


class Tracks:
    """The package's sequential rule on many experiments; those that have found something are left alone."""

    def __init__(self, rule: SequentialRule, count: int) -> None:
        self.rule = rule
        self.tracks = [Track()] * count
        self.found_at = np.full(count, np.inf)

    def look(self, at: float, value: Floats, variance: Floats, is_ripe: NDArray[np.bool_]) -> None:
        """Advance each by one look."""
        for index in np.flatnonzero(is_ripe & np.isinf(self.found_at)).tolist():
            effect = MetricEffect(0.0, 0.0, float(value[index]), float(variance[index]), math.inf)
            self.tracks[index] = track = advance(self.rule, self.tracks[index], effect)
            if track.low > 0 or track.high < 0:
                self.found_at[index] = at

    @property
    def found(self) -> int:
        """The number of experiments that have found an effect."""
        return int(np.isfinite(self.found_at).sum())
