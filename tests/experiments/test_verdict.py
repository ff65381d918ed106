"""Sample ratio, verdicts and plans."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dspyq.experiments.guards import GuardRule, GuardTrack
from dspyq.experiments.planning import (
    calls_for_answers,
    design_effect,
    expected_answers,
    rows_needed,
    simulate,
    zipf_shares,
)
from dspyq.experiments.sample_ratio import BROKEN_LOG_EVIDENCE, sample_ratio_log_evidence
from dspyq.experiments.sequential import SequentialRule, Track
from dspyq.experiments.verdict import Findings, Soundness, judge

RULE = SequentialRule.planned(0.02)
GUARD = GuardRule(margin=0.01)
SOUND = GuardTrack(Track(low=-0.01, high=0.005))
WON = Findings(
    RULE, Track(low=0.01, high=0.05), by_answer=0.03, by_traffic=0.01, guards={"call.failed": (GUARD, SOUND)}
)


@given(st.lists(st.integers(0, 2), max_size=60))
def test_the_evidence_against_a_ratio_is_the_product_of_its_predictions(arrivals):
    """By the chain rule: each unit's probability under the prior so far, over its share."""
    shares, strength = (0.5, 0.3, 0.2), 10.0
    counts, expected = [0, 0, 0], 0.0
    for each in arrivals:
        expected += math.log((strength * shares[each] + counts[each]) / (strength + sum(counts)) / shares[each])
        counts[each] += 1
    assert sample_ratio_log_evidence(counts, shares, strength) == pytest.approx(expected, abs=1e-9)


def test_a_ratio_that_holds_is_sound_and_one_that_does_not_is_broken():
    assert sample_ratio_log_evidence((10_000, 10_100), (0.5, 0.5)) < 0
    assert sample_ratio_log_evidence((10_000, 11_000), (0.5, 0.5)) > BROKEN_LOG_EVIDENCE


def test_a_unit_in_an_arm_without_a_share_breaks_it():
    assert sample_ratio_log_evidence((10, 1), (1.0, 0.0)) == math.inf
    assert sample_ratio_log_evidence((10, 0), (1.0, 0.0)) == 0


def test_a_win_needs_all():
    assert judge(WON).outcome == "wins"


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"soundness": Soundness(ratio_log_evidence=math.log(1000))}, "broken"),
        ({"soundness": Soundness(has_lost_counts=True)}, "broken"),
        ({"guards": {"call.failed": (GUARD, SOUND._replace(log_evidence=math.log(100)))}}, "breach"),
        ({"primary": Track(low=0.02, high=0.01)}, "drifts"),
        ({"by_traffic": -0.001}, "split"),
        ({"primary": Track(low=-0.05, high=-0.01)}, "loses"),
        ({"primary": Track(low=-0.01, high=0.01)}, "no difference that matters"),
        ({"primary": Track(low=-0.01, high=0.03)}, "going on"),
        ({"guards": {"call.failed": (GUARD, GuardTrack())}}, "going on"),
        ({"at_least_days": 7.0, "days": 6.9}, "going on"),
    ],
)
def test_what_keeps_it_from_a_win(change, outcome):
    assert judge(replace(WON, **change)).outcome == outcome


def test_a_breach_needs_no_day_and_outweighs_a_win():
    breached = {"call.failed": (GUARD, GuardTrack(log_evidence=10.0))}
    found = judge(replace(WON, guards=breached, at_least_days=7.0))
    assert found == ("breach", "worse by more than the margin: call.failed")


def test_rows_for_a_plan_by_hand():
    """(1.96 + 0.84)² / 0.02² = 19,622; times 0.7 · 0.3 · 2 · 2 = 16,483 rows of both arms together."""
    rule_information = RULE.information / 1.2
    assert rows_needed(rule_information, 0.21) == pytest.approx(16_482.6, abs=0.1)
    assert design_effect(5, 0.2) == pytest.approx(1.8)
    assert design_effect(0.5, 0.2) == 1


def test_a_simulated_plan_has_the_power_it_is_made_for():
    """2,000 paths: a standard error of 0.9 points at 80 %."""
    at_fixed, at_plan, at_twice = simulate(RULE, 0.02, shares=(1 / 1.2, 1.0, 2 / 1.2))
    assert at_fixed.found < at_plan.found <= at_twice.found
    assert at_plan.found == pytest.approx(0.81, abs=0.03)
    assert at_twice.found == pytest.approx(0.84, abs=0.03)


def test_a_simulated_experiment_without_an_effect_seldom_finds_one():
    (last,) = simulate(RULE, 0.0, shares=(3.0,))
    assert last.found <= 0.05
    assert last.settled > 0.5


def test_a_simulation_is_the_same_for_the_same_seed():
    assert simulate(RULE, 0.01, paths=50, seed=3) == simulate(RULE, 0.01, paths=50, seed=3)
    assert simulate(RULE, 0.01, paths=50, seed=3) != simulate(RULE, 0.01, paths=50, seed=4)


def test_expected_answers_are_those_that_calls_bring():
    popularity = zipf_shares(300, 1.0)
    draw = random.Random(5)  # noqa: S311 - a simulation
    found = [len(set(draw.choices(range(300), popularity, k=1000))) for _ in range(200)]
    assert expected_answers(1000, popularity) == pytest.approx(sum(found) / len(found), rel=0.01)
    assert expected_answers(1000, popularity, caches=2) > expected_answers(1000, popularity)


@given(st.floats(1, 590))
def test_calls_for_answers_bring_them(answers):
    popularity = zipf_shares(300, 1.0)
    calls = calls_for_answers(answers, popularity, caches=2)
    assert expected_answers(calls, popularity, caches=2) == pytest.approx(answers, rel=1e-4)


def test_no_number_of_calls_brings_more_answers_than_questions():
    assert calls_for_answers(600, zipf_shares(300, 1.0), caches=2) == math.inf
