"""Intervals and evidence at any look: by hand, by numerical integration, and as properties."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyq.experiments.burn_in import unripe
from dspyq.experiments.effects import MetricEffect, metric_effect
from dspyq.experiments.mixture import mixture_log_evidence, mixture_radius, one_sided_log_evidence
from dspyq.experiments.multiplicity import holm
from dspyq.experiments.normal import log_tail, quantile_above
from dspyq.experiments.planned import (
    critical_value,
    fixed_information,
    planned_information,
    planned_radius,
)
from dspyq.experiments.sequential import SequentialRule, Track, advance
from tests.experiments.samples import arm, rates

RULE = SequentialRule.planned(0.02)
variances = st.floats(1e-8, 1e-1)
effects = st.floats(-0.5, 0.5)


def look(value, variance):
    return MetricEffect(0.5, 0.5 + value, value, variance, 100.0)


def integrated(effect, variance, spread, low):
    """Return the mean of the likelihood ratio over a normal mixture from ``low`` on, by the midpoint rule."""
    steps, high = 20_000, 12 * spread
    width = (high - low) / steps
    points = (low + (step + 0.5) * width for step in range(steps))
    prior = NormalDist(0, spread)
    return sum(math.exp((effect * t - t * t / 2) / variance) * prior.pdf(t) for t in points) * width


@pytest.mark.parametrize("effect", [-0.02, 0.0, 0.01, 0.05])
def test_evidence_is_the_integral_of_likelihood_ratios(effect):
    both = integrated(effect, 1e-4, 0.02, low=-0.24)
    above = 2 * integrated(effect, 1e-4, 0.02, low=0.0)
    assert mixture_log_evidence(effect, 1e-4, 0.02) == pytest.approx(math.log(both), abs=1e-6)
    assert one_sided_log_evidence(effect, 1e-4, 0.02) == pytest.approx(math.log(above), abs=1e-6)


@given(variances, st.floats(0.001, 0.1), st.floats(0.001, 0.2))
def test_the_mixtures_radius_is_where_its_evidence_is_one_over_alpha(variance, spread, alpha):
    radius = mixture_radius(variance, spread, alpha)
    assert mixture_log_evidence(radius, variance, spread) == pytest.approx(math.log(1 / alpha))


def test_the_mixture_is_tightest_at_the_fixed_sample_for_its_effect():
    """r = spread² / V solves r = -2 ln α + ln(1 + r): 7.93, beside (1.96 + 0.84)² = 7.85."""
    at_fixed = 1 / fixed_information(0.02)
    radii = {s: mixture_radius(at_fixed, s, 0.05) for s in (0.016, 0.018, 0.019, 0.02, 0.021, 0.022, 0.025)}
    assert min(radii, key=radii.get) == 0.02


def test_the_planned_bound_by_hand():
    """c = Φ⁻¹(0.99) at 4 %; √I = √1.2 · 2.8016 / 0.02 = 153.45; V = 1 / 10,000."""
    assert critical_value(0.04) == pytest.approx(2.326348, abs=1e-6)
    assert fixed_information(0.02) == pytest.approx(19_622.2, abs=0.1)
    assert planned_information(0.02) == pytest.approx(23_546.6, abs=0.1)
    assert planned_radius(1e-4, 23_546.6, 0.04) == pytest.approx(0.0356976, abs=1e-6)
    assert planned_radius(1 / 23_547, 23_546.6, 0.04) == math.inf


@given(st.floats(0.001, 0.999))
def test_the_tail_and_its_quantile_are_each_others_inverse(probability):
    assert math.exp(log_tail(quantile_above(probability))) == pytest.approx(probability)


@pytest.mark.parametrize("effect", [-1.0, -1e3, -1e9])
def test_an_effect_far_on_the_other_side_is_no_evidence(effect):
    """Two large terms cancel there; their rounding must not pass for evidence."""
    assert one_sided_log_evidence(effect, 1e-30, 0.01) < 0


def test_the_tail_goes_on_where_floats_end():
    assert log_tail(29.999999) == pytest.approx(log_tail(30.000001), rel=1e-6)
    assert log_tail(100) == pytest.approx(-5005.524209, abs=1e-5)


def crossing_probability(effect, information, alpha):
    """The chance that the planned bound finds an effect, looked at all the time.

    A Brownian motion with drift μ crosses c before time 1 with probability 1 - Φ(c - μ) + e^(2μc) Φ(-c - μ) (Siegmund
    1985, chapter 3); crossing the other side is left out.
    """
    drift, bound = abs(effect) * math.sqrt(information), critical_value(alpha)
    return min(1.0, math.exp(log_tail(bound - drift)) + math.exp(2 * drift * bound + log_tail(bound + drift)))


def test_the_plans_power_is_that_of_its_factor():
    """Looked at all the time 82.5 %; 50 looks for a fixed test's rows find 80 %."""
    assert crossing_probability(0.02, planned_information(0.02), 0.04) == pytest.approx(0.825, abs=0.002)
    assert crossing_probability(0.0, planned_information(0.02), 0.04) == pytest.approx(0.02, abs=1e-9)


@given(effects, variances)
def test_the_interval_leaves_out_no_effect_where_the_p_value_is_below_alpha(effect, variance):
    is_out = abs(effect) > RULE.radius(variance)
    p = math.exp(-RULE.log_evidence(effect, variance))
    assert is_out == (p < RULE.alpha) or p == pytest.approx(RULE.alpha)


@given(st.lists(st.tuples(effects, variances), max_size=20), st.tuples(effects, variances))
def test_no_look_takes_a_finding_back(looks, last):
    track = Track()
    for each in looks:
        track = advance(RULE, track, look(*each))
    after = advance(RULE, track, look(*last))
    assert after.low >= track.low
    assert after.high <= track.high
    assert after.log_evidence >= track.log_evidence
    assert after.p_value <= track.p_value


def test_the_planned_bound_stays_off_once_the_plan_is_over():
    over = advance(RULE, Track(), look(0.0, 1 / (RULE.information + 1)))
    assert over.is_plan_over
    again = advance(RULE, over, look(0.0, 1 / (RULE.information - 1)))
    assert again.is_plan_over
    assert again.high == over.high


def test_an_effect_that_changed_drifts():
    track = advance(RULE, advance(RULE, Track(), look(0.1, 1e-5)), look(-0.1, 1e-5))
    assert track.drifts


def test_a_look_without_a_variance_is_none():
    for variance in (0.0, math.inf):
        assert advance(RULE, Track(), look(0.5, variance)) == Track()


def test_a_track_survives_json():
    import json

    track = advance(RULE, Track(), look(0.01, 1e-4))
    assert Track(*json.loads(json.dumps(track))) == track


def test_looks_wait_until_they_can_be_believed():
    control = rates(10, 20, clusters_used=40)
    assert unripe(control, control, look(0, 1), is_yes_or_no=True) == "few units"
    questions = arm([(row, row % 40, float(row % 2)) for row in range(120)], 128)
    assert unripe(questions, questions, look(0, 1), is_yes_or_no=True) == "few questions"
    rare = rates(9, 500)
    assert unripe(rates(50, 500), rare, look(0, 1), is_yes_or_no=True) == "few outcomes"
    assert unripe(rates(50, 500), rates(491, 500), look(0, 1), is_yes_or_no=True) == "few outcomes"
    assert unripe(rates(50, 500), rare, look(0, 1), is_yes_or_no=False) is None
    assert unripe(rates(50, 500), rates(0, 500), look(0, 1), is_yes_or_no=False) == "no spread"
    assert unripe(rates(50, 500), rates(50, 500), look(0, 0), is_yes_or_no=True) == "no spread"
    few = look(0, 1)._replace(effective_clusters=19.9)
    assert unripe(rates(50, 500), rates(50, 500), few, is_yes_or_no=True) == "few independent rows"
    assert unripe(rates(50, 500), rates(50, 500), look(0, 1), is_yes_or_no=True) is None


def test_one_unit_of_most_rows_makes_a_look_wait():
    """A bot whose rows decide: by its questions alone it looks like hundreds of independent rows."""
    people = [(unit, unit, float(unit % 2)) for unit in range(100)]
    bot = [(127, question % 128, 1.0) for question in range(900)]
    control, challenger = arm(people * 5, 128), arm(people * 5 + bot, 128)
    effect = metric_effect(control, challenger)
    assert effect.effective_clusters < 2
    assert unripe(control, challenger, effect, is_yes_or_no=True) == "few independent rows"


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=10))
def test_holm_lowers_no_p_value_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(a >= min(1.0, p) for a, p in zip(adjusted, p_values, strict=True))
    by_rank = [adjusted[i] for i in sorted(range(len(p_values)), key=p_values.__getitem__)]
    assert by_rank == sorted(by_rank)
