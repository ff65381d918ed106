"""Effects and their variances: by hand, and against leaving out each cluster in turn."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dspyq.experiments.effects import metric_effect, paired_effect, two_way
from dspyq.experiments.jackknife import (
    deviations,
    effective_clusters,
    ratio,
    row_variance,
    variance_alone,
    variance_apart,
    variance_together,
)
from dspyq.experiments.sums import ClusterSums, RowSums
from tests.experiments.samples import arm, clusters

BUCKETS = 6
values = st.floats(0.01, 10)
rows = st.lists(st.tuples(st.integers(0, BUCKETS - 1), st.integers(0, BUCKETS - 1), values), min_size=2, max_size=40)


def without(sums, bucket):
    return ClusterSums(*(tuple(0.0 if b == bucket else x for b, x in enumerate(part)) for part in sums))


def mean(sums, scale="difference"):
    return ratio(sums) if scale == "difference" else math.log(ratio(sums))


def left_out(challenger, control, scale):
    """Return (G - 1) / G · Σ (effect - effect without b)², computed by leaving b out."""
    whole = mean(challenger, scale) - mean(control, scale)
    used = [b for b in range(BUCKETS) if challenger.denominators[b] or control.denominators[b]]
    each = [whole - (mean(without(challenger, b), scale) - mean(without(control, b), scale)) for b in used]
    return (len(used) - 1) / len(used) * sum(x * x for x in each)


def test_the_variance_of_four_rows_in_two_clusters_by_hand():
    """R = 5/4; without bucket 0: 4/2 = 2, so -3/4; without bucket 1: 1/2, so 3/4; 1/2 · 2 · 9/16 = 9/16."""
    sums = clusters([(0, 0.0), (0, 1.0), (1, 2.0), (1, 2.0)], 2)
    assert deviations(sums, "difference") == [-0.75, 0.75]
    assert variance_alone(sums) == (0.5625, 2.0)


@pytest.mark.parametrize("scale", ["difference", "logarithm"])
@given(rows, rows)
def test_the_closed_form_is_the_jackknife_that_leaves_out_each_cluster(scale, first, second):
    challenger, control = arm(first, BUCKETS).by_question, arm(second, BUCKETS).by_question
    assume(all(sum(map(bool, sums.denominators)) > 1 for sums in (challenger, control)))
    found = variance_together(challenger, control, scale)
    assert found.variance == pytest.approx(left_out(challenger, control, scale), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("scale", ["difference", "logarithm"])
@given(rows, rows)
def test_variances_of_arms_without_a_cluster_in_common_add_up(scale, first, second):
    challenger, control = arm(first, BUCKETS).by_unit, arm(second, BUCKETS).by_unit
    assume(all(sum(map(bool, sums.denominators)) > 1 for sums in (challenger, control)))
    found = variance_apart(challenger, control, scale).variance
    alone = variance_alone(challenger, scale).variance + variance_alone(control, scale).variance
    assert found == pytest.approx(alone, rel=1e-12)


@given(st.lists(values, min_size=2, max_size=30))
def test_rows_that_are_clusters_of_their_own_have_the_variance_of_rows(drawn):
    alone = variance_alone(clusters(enumerate(drawn), len(drawn))).variance
    by_row = row_variance(RowSums(len(drawn), sum(drawn), sum(x * x for x in drawn)), "difference")
    assert by_row == pytest.approx(alone, rel=1e-6, abs=1e-9)
    centre = sum(drawn) / len(drawn)
    expected = sum((x - centre) ** 2 for x in drawn) / len(drawn) / (len(drawn) - 1)
    assert by_row == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(rows, rows)
def test_the_variance_is_no_less_than_either_clustering_alone(first, second):
    control, challenger = arm(first, BUCKETS), arm(second, BUCKETS)
    effect = metric_effect(control, challenger)
    by_unit = variance_apart(challenger.by_unit, control.by_unit, "difference").variance
    by_question = variance_together(challenger.by_question, control.by_question, "difference").variance
    assert effect.variance >= max(by_unit, by_question)


@given(rows, rows)
def test_without_squares_the_variance_is_no_less(first, second):
    control, challenger = arm(first, BUCKETS), arm(second, BUCKETS)
    assume(math.isfinite(metric_effect(control, challenger).variance))
    without_squares = metric_effect(control._replace(rows=None), challenger._replace(rows=None))
    assert without_squares.variance >= metric_effect(control, challenger).variance


@given(rows, rows, st.floats(0.1, 100))
def test_another_unit_of_the_metric_changes_no_logarithm(first, second, factor):
    plain = metric_effect(arm(first, BUCKETS), arm(second, BUCKETS), "logarithm")
    scaled = metric_effect(
        *(arm([(u, q, y * factor) for u, q, y in each], BUCKETS) for each in (first, second)), "logarithm"
    )
    assert scaled.value == pytest.approx(plain.value, rel=1e-9, abs=1e-9)
    if math.isfinite(plain.variance):
        assert scaled.variance == pytest.approx(plain.variance, rel=1e-6, abs=1e-9)


@given(rows, rows)
def test_arms_that_change_places_change_the_sign_alone(first, second):
    one, other = arm(first, BUCKETS), arm(second, BUCKETS)
    forth, back = metric_effect(one, other), metric_effect(other, one)
    assert back.value == -forth.value
    assert back.variance == pytest.approx(forth.variance)
    assert back.effective_clusters == pytest.approx(forth.effective_clusters)


def test_two_ways_is_unit_plus_question_less_row_and_at_least_each():
    assert two_way(3.0, 2.0, 1.0) == 4.0
    assert two_way(3.0, 2.0, 9.0) == 3.0
    assert two_way(math.inf, 2.0, math.inf) == math.inf


def test_a_question_that_is_hard_in_both_arms_cancels():
    """Each arm's own variance is large, and their difference has none."""
    same = arm([(row, row % BUCKETS, float(row % BUCKETS)) for row in range(30)], 30)
    found = variance_together(same.by_question, same.by_question, "difference")
    assert found == (0.0, 0.0)
    assert variance_alone(same.by_question).variance > 0


def test_an_arm_in_one_cluster_has_no_variance_that_could_be_known():
    lonely = arm([(0, 0, 1.0), (0, 0, 0.0)], BUCKETS)
    other = arm([(bucket, bucket, float(bucket % 2)) for bucket in range(BUCKETS)], BUCKETS)
    effect = metric_effect(other, lonely)
    assert (effect.variance, effect.effective_clusters) == (math.inf, 1.0)


def test_an_arm_without_rows_has_no_effect():
    empty, other = arm([], BUCKETS), arm([(0, 0, 1.0)], BUCKETS)
    assert metric_effect(empty, other) is None
    assert metric_effect(arm([(0, 0, 0.0)], BUCKETS), other, "logarithm") is None


def test_where_the_unit_is_the_question_one_clustering_serves():
    control = arm([(0, bucket, float(bucket % 2)) for bucket in range(BUCKETS)], BUCKETS)._replace(by_unit=None)
    challenger = arm([(0, bucket, 1.0) for bucket in range(BUCKETS)], BUCKETS)._replace(by_unit=None)
    found = variance_together(challenger.by_question, control.by_question, "difference")
    effect = metric_effect(control, challenger)
    assert (effect.value, effect.variance, effect.effective_clusters) == (0.5, *found)


def test_differences_by_row_have_the_variance_of_their_clusters():
    sums = clusters([(0, 0.25), (0, 0.25), (1, -0.5), (2, 1.0)], 3)
    effect = paired_effect(sums)
    assert (effect.value, effect.variance) == (0.25, variance_alone(sums).variance)
    assert paired_effect(clusters([], 3)) is None


@given(st.integers(1, 50), st.floats(1e-100, 1e100))
def test_equal_clusters_are_as_many_as_they_are(count, size):
    assert effective_clusters([size, -size] * count) == pytest.approx(2 * count)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_effective_clusters_are_no_more_than_clusters(drawn):
    assert 0 <= effective_clusters(drawn) <= len(drawn) + 1e-9


def test_one_cluster_that_decides_is_one():
    assert effective_clusters([1.0, 1e-9, 1e-9]) == pytest.approx(1)
    assert effective_clusters([0.0, 0.0]) == 0
