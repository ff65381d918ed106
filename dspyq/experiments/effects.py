"""The effect of a challenger on one metric, with the variance that calls behind a cache have.

A cached answer is served to many units, and a unit calls with many questions, so rows depend on each other along both.
The variance is clustered two ways, V = V_unit + V_question - V_row, and at least the larger of the first two (Cameron,
Gelbach, Miller, "Robust Inference With Multiway Clustering", Journal of Business & Economic Statistics 29, 2011; the
lower bound: MacKinnon, Nielsen, Webb, ibid. 39, 2021; for experiments: Bakshy, Eckles, KDD 2013). V_row, of rows by
themselves, takes the place of the variance by pairs of unit and question. It is at most that where a pair's rows are
alike, so V errs upward.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dspyq.experiments.jackknife import (
    Scale,
    ratio,
    row_variance,
    variance_alone,
    variance_apart,
    variance_together,
)
from dspyq.experiments.sums import ArmSums, ClusterSums, RowSums


class MetricEffect(NamedTuple):
    """An effect as one look at the sums finds it.

    Attributes:
        control: The control's mean, in the metric's unit.
        challenger: The challenger's mean, in the metric's unit.
        value: challenger - control, in the metric's unit; on the scale ``logarithm`` ln(challenger / control), so 0.03
            is about 3 % more.
        variance: The variance of ``value``; infinite where it cannot be estimated.
        effective_clusters: Of units or of questions, whichever are fewer: a normal limit needs enough of both.
    """

    control: float
    challenger: float
    value: float
    variance: float
    effective_clusters: float


def metric_effect(control: ArmSums, challenger: ArmSums, scale: Scale = "difference") -> MetricEffect | None:
    """Return the effect, clustered two ways; None while an arm has no row, or no positive mean for a logarithm."""
    means = ratio(control.by_question), ratio(challenger.by_question)
    if any(map(math.isnan, means)) or (scale == "logarithm" and min(means) <= 0):
        return None
    value = means[1] - means[0] if scale == "difference" else math.log(means[1] / means[0])
    by_question = variance_together(challenger.by_question, control.by_question, scale)
    if control.by_unit is None or challenger.by_unit is None:  # the unit is the question
        return MetricEffect(*means, value, *by_question)
    by_unit = variance_apart(challenger.by_unit, control.by_unit, scale)
    by_row = _row_variance(control, scale) + _row_variance(challenger, scale)
    return MetricEffect(
        *means,
        value,
        variance=two_way(by_unit.variance, by_question.variance, by_row),
        effective_clusters=min(by_unit.effective_clusters, by_question.effective_clusters),
    )


def paired_effect(differences: ClusterSums) -> MetricEffect | None:
    """Return the mean of differences by row, clustered one way; None while there is no row.

    Pairing takes the rows' own difficulty out of the variance (Miller, "Adding Error Bars to Evals", arXiv:2411.00640,
    section 4.2).

    Args:
        differences: Sums of challenger - control by cluster (a document, a user, a question), of rows both answered.
    """
    mean = ratio(differences)
    return None if math.isnan(mean) else MetricEffect(0.0, mean, mean, *variance_alone(differences))


def two_way(by_unit: float, by_question: float, by_row: float) -> float:
    """Return the variance clustered two ways, from the variances clustered by each, and by neither."""
    if not (math.isfinite(by_unit) and math.isfinite(by_question)):
        return math.inf
    return max(by_unit + by_question - by_row, by_unit, by_question)


def _row_variance(arm: ArmSums, scale: Scale) -> float:
    rows: RowSums | None = arm.rows
    return 0.0 if rows is None else row_variance(rows, scale)
