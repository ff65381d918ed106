"""Rounds within a time: as many faults as fit, the short forms first, and none that would end too late."""

import argparse
import time

import pytest

from tests.chaos.budget import AT_ONCE, FUZZED_SHARE, duration, round_seconds, rounds
from tests.chaos.durations import SECONDS
from tests.chaos.faults import FAULTS
from tests.chaos.outcome import Outcome

NAMES = ["a", "b", "c"]


def run_by(seconds):
    """Run nothing: each fault takes so long, as it says."""

    def run(names, seed, *, is_quick, at_once):
        assert len(names) <= at_once
        for name in names:
            calls.append((name, seed, is_quick))
            yield name, Outcome(name, 0, 0, 0, 0, 0, (), 0, ()), seconds

    calls = []
    return run, calls


def test_short_forms_of_all_come_first_and_further_rounds_have_other_seeds():
    run, calls = run_by(1.0)
    found = rounds(run, NAMES, 5, until=time.monotonic() + 1_000, at_once=2)
    ran = [next(found) for _ in range(9)]
    assert sorted(name for name, seed, is_quick in calls[:3] if is_quick and seed == 5) == NAMES
    assert [sorted(name for name, seed, is_quick in calls if seed == each and not is_quick) for each in (6, 7)] == [
        NAMES
    ] * 2
    assert ran[0].name.endswith("(short, seed 5)")


def test_nothing_begins_that_is_expected_to_end_too_late():
    run, calls = run_by(500.0)
    list(rounds(run, NAMES, 1, until=time.monotonic() + 100, at_once=3))
    assert [is_quick for _, _, is_quick in calls] == [True] * 3  # in full they are guessed to take longer than is left


def test_faults_of_like_length_run_together():
    names = sorted(SECONDS, key=lambda name: SECONDS[name][0])[:6]
    run, calls = run_by(1.0)
    found = rounds(run, names, 1, until=time.monotonic() + 1_000, at_once=2)
    for _ in names:
        next(found)
    pairs = [{name for name, *_ in calls[start : start + 2]} for start in range(0, 6, 2)]
    assert sorted(map(sorted, pairs)) == sorted(map(sorted, [set(names[:2]), set(names[2:4]), set(names[4:])]))


def test_a_quarter_of_an_hour_holds_the_short_form_of_each_fault_and_the_fuzzing():
    seconds = duration("15m")
    assert FUZZED_SHARE * seconds + round_seconds(list(FAULTS), AT_ONCE, is_quick=True) <= seconds


def test_an_hour_holds_each_fault_in_its_short_form_and_most_of_them_in_full():
    seconds = duration("1h")
    left = (1 - FUZZED_SHARE) * seconds - round_seconds(list(FAULTS), AT_ONCE, is_quick=True)
    assert left >= 0.75 * round_seconds(list(FAULTS), AT_ONCE, is_quick=False)


def test_a_night_holds_three_rounds_of_all_faults_in_full():
    seconds = duration("8h")
    left = (1 - FUZZED_SHARE) * seconds - round_seconds(list(FAULTS), AT_ONCE, is_quick=True)
    assert left >= 3 * round_seconds(list(FAULTS), AT_ONCE, is_quick=False)


@pytest.mark.parametrize(("text", "seconds"), [("15m", 900), ("1h", 3600), ("90s", 90)])
def test_a_time_is_read(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1d", "-1h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no duration"):
        duration(text)
