"""Guards: harm beyond a margin, and harm that is ruled out."""

import math
import random

import pytest

from dspyq.experiments.guards import GuardRule, GuardTrack, advance_guard
from tests.experiments.samples import arm, rates

FAILURES = GuardRule(margin=0.01, is_yes_or_no=True)


def after(rule, control, challenger):
    return advance_guard(rule, GuardTrack(), control, challenger)


def test_failures_beyond_the_margin_are_a_breach():
    track = after(FAILURES, rates(4, 1000), rates(60, 1000))
    assert track.is_breached(FAILURES)
    assert not track.is_sound(FAILURES)


def test_failures_within_the_margin_are_none():
    track = after(FAILURES, rates(40, 10_000), rates(45, 10_000))
    assert not track.is_breached(FAILURES)
    assert track.is_sound(FAILURES)


def test_too_few_rows_show_neither():
    track = after(FAILURES, rates(0, 100), rates(9, 100))
    assert not track.is_breached(FAILURES)
    assert not track.is_sound(FAILURES)


@pytest.mark.parametrize(("rows", "is_sound"), [(500, False), (4000, True)])
def test_an_arm_in_which_nothing_fails_is_proven_harmless_once_it_has_rows_enough(rows, is_sound):
    assert after(FAILURES, rates(0, rows), rates(0, rows)).is_sound(FAILURES) is is_sound


def test_few_failures_of_one_unit_rule_no_harm_out():
    """Nine of 2,000 calls, all of one unit: its variance is that of one row."""
    people = [(unit % 100, unit % 100, 0.0) for unit in range(2000)]
    bot = [(127, row % 128, 1.0) for row in range(9)]
    assert not after(FAILURES, arm(people, 128), arm(people + bot, 128)).is_sound(FAILURES)


def test_an_arm_in_which_every_call_fails_is_found_though_it_has_no_spread():
    track = after(FAILURES, rates(0, 20), rates(20, 20))
    assert track.is_breached(FAILURES)


def test_one_unit_whose_calls_all_fail_is_no_breach():
    people = [(unit % 100, unit % 100, 0.0) for unit in range(1000)]
    bot = [(127, row % 128, 1.0) for row in range(100)]
    assert not after(FAILURES, arm(people, 128), arm(people + bot, 128)).is_breached(FAILURES)


@pytest.mark.parametrize(("factor", "is_breach"), [(1.3, True), (1.05, False), (0.5, False)])
def test_a_relative_margin_is_a_share_of_the_control(factor, is_breach):
    rule = GuardRule(margin=0.1, is_relative=True)
    drawn = random.Random(1).choices((1.0, 2.0, 3.0), k=6000)  # noqa: S311 - a sample
    rows = [(row % 97, row % 97, price) for row, price in enumerate(drawn)]
    control = arm(rows[:3000], 128)
    challenger = arm([(unit, question, factor * price) for unit, question, price in rows[3000:]], 128)
    assert after(rule, control, challenger).is_breached(rule) is is_breach


def test_a_score_is_worse_when_it_is_lower():
    rule = GuardRule(margin=0.02, worse="lower", is_yes_or_no=True)
    assert after(rule, rates(700, 1000), rates(500, 1000)).is_breached(rule)
    better = after(rule, rates(500, 1000), rates(700, 1000))
    assert not better.is_breached(rule)
    assert better.is_sound(rule)


def test_relative_margins_are_logarithms_of_the_allowed_ratio():
    assert GuardRule(margin=0.1, is_relative=True).harm == pytest.approx(math.log(1.1))
    assert GuardRule(margin=0.1, is_relative=True, worse="lower").harm == pytest.approx(-math.log(0.9))


@pytest.mark.parametrize("table", [{"margin": 0}, {"margin": -1}, {"margin": 1, "is_relative": True, "worse": "lower"}])
def test_a_margin_that_nothing_can_be_compared_with_is_refused(table):
    with pytest.raises(ValueError, match="margin: state one above 0"):
        GuardRule(**table)


def test_a_breach_stays_one():
    breached = after(FAILURES, rates(4, 1000), rates(60, 1000))
    later = advance_guard(FAILURES, breached, rates(40, 10_000), rates(45, 10_000))
    assert later.is_breached(FAILURES)
