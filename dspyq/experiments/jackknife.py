"""Variance of a ratio of sums by leaving out one cluster at a time, in closed form.

With R = ΣS / ΣN and R(-b) the same without cluster b, R - R(-b) = (S_b - R N_b) / (ΣN - N_b): no cluster needs a pass
of its own. The variance is (G - 1) / G · Σ (R - R(-b))², the cluster jackknife CV3 about the whole sample's estimate
(MacKinnon, Nielsen, Webb, "Fast and reliable jackknife and bootstrap methods for cluster-robust inference", Journal of
Applied Econometrics 38, 2023). It errs upward where few clusters hold most rows, where the linearised form (Deng,
Knoblich, Lu, "Applying the Delta Method in Metric Analytics", KDD 2018) errs downward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from dspyq.experiments.sums import ClusterSums, RowSums

Scale = Literal["difference", "logarithm"]


class ClusteredVariance(NamedTuple):
    """A variance, and the number of clusters that it rests on.

    Attributes:
        variance: In the square of the effect's unit; infinite where it cannot be estimated.
        effective_clusters: See `effective_clusters`; 0 where there is no spread.
    """

    variance: float
    effective_clusters: float


def ratio(sums: ClusterSums) -> float:
    """Return the mean of the rows; NaN where there are none."""
    rows = math.fsum(sums.denominators)
    return math.fsum(sums.numerators) / rows if rows > 0 else math.nan


def deviations(sums: ClusterSums, scale: Scale) -> list[float]:
    """Return R - R(-b) for each cluster b, or ln R - ln R(-b); infinite where nothing is left without b."""
    total, rows = math.fsum(sums.numerators), math.fsum(sums.denominators)
    if rows <= 0:
        return [math.inf if n else 0.0 for n in sums.denominators]
    mean = total / rows
    found = [
        0.0 if n == 0 and s == 0 else (s - mean * n) / (rows - n) if rows > n else math.inf
        for s, n in zip(sums.numerators, sums.denominators, strict=True)
    ]
    if scale == "difference":
        return found
    return [-math.log1p(-each / mean) if mean > 0 and each < mean else math.inf for each in found]


def variance_together(challenger: ClusterSums, control: ClusterSums, scale: Scale) -> ClusteredVariance:
    """Return the variance of the effect where both arms have the same clusters: questions.

    A cluster is left out of both arms at once, so a question's difficulty, which is the same in both, cancels.
    """
    differences = [
        t - c if math.isfinite(t) and math.isfinite(c) else math.inf
        for t, c in zip(deviations(challenger, scale), deviations(control, scale), strict=True)
    ]
    used = sum(1 for t, c in zip(challenger.denominators, control.denominators, strict=True) if t or c)
    return ClusteredVariance(_variance(differences, used), effective_clusters(differences))


def variance_apart(challenger: ClusterSums, control: ClusterSums, scale: Scale) -> ClusteredVariance:
    """Return the variance of the effect where no cluster is in both arms: units.

    A unit has one arm, and arms are drawn independently of buckets, so the arms' variances add up.
    """
    parts = [(deviations(sums, scale), sum(map(bool, sums.denominators))) for sums in (challenger, control)]
    return ClusteredVariance(
        sum(_variance(found, used) for found, used in parts),
        effective_clusters([each for found, _ in parts for each in found]),
    )


def variance_alone(sums: ClusterSums, scale: Scale = "difference") -> ClusteredVariance:
    """Return the variance of one mean: of differences by row, say, where each row was answered by both variants."""
    found = deviations(sums, scale)
    return ClusteredVariance(_variance(found, sum(map(bool, sums.denominators))), effective_clusters(found))


def row_variance(rows: RowSums, scale: Scale) -> float:
    """Return the variance of a mean whose rows are independent: the jackknife over rows, Σ(y - R)² / (n (n - 1))."""
    if rows.rows <= 1:
        return 0.0  # it is subtracted: 0 errs upward
    mean = rows.total / rows.rows
    spread = max(0.0, rows.squares - rows.total * mean)
    variance = spread / (rows.rows * (rows.rows - 1))
    return variance if scale == "difference" else variance / (mean * mean) if mean > 0 else 0.0


def effective_clusters(found: Sequence[float]) -> float:
    """Return (Σd²)² / Σd⁴ of deviations: the number of equal clusters that would carry the same variance.

    It is the inverse of the Herfindahl index of the clusters' shares of the variance (the idea of the effective number
    of clusters: Carter, Schnepel, Steigerwald, Review of Economics and Statistics 99, 2017). 1 where one cluster
    decides, 0 where there is no spread.
    """
    if not all(map(math.isfinite, found)):
        return 1.0
    largest = max((abs(each) for each in found), default=0.0)
    if largest == 0:
        return 0.0
    squares = [(each / largest) ** 2 for each in found]  # by the largest: its fourth power is in a float's range
    return math.fsum(squares) ** 2 / math.fsum(each * each for each in squares)


def _variance(found: Iterable[float], used: int) -> float:
    """Return (G - 1) / G · Σd²; infinite for fewer than two clusters."""
    if used < 2:  # noqa: PLR2004 - one cluster has no spread
        return math.inf
    squares = [each * each for each in found]
    return (used - 1) / used * math.fsum(squares) if all(map(math.isfinite, squares)) else math.inf
