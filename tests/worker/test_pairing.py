"""Pairs of answers as pair scorers get them."""

from __future__ import annotations

import pytest

from dspyq.experiments.administration import plan_of
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.pairing import pair_of
from tests.support.experiments import with_experiment
from tests.support.user_scorers import exaggerates, favours_the_first, prefers_brief


@pytest.fixture
def pair(configure, settings_file):
    """Return the pair of a shadow run: ``pair("its task")``."""
    program = configure(settings_file(with_experiment(), challenger=0.5)).programs["qa"]
    variant, table = program.variants["challenger"], plan_of(program).table

    def make(task_id):
        answered = Answered(program.served["challenger"], variant, {"question": "q"}, {"answer": "short"}, task_id)
        return pair_of(answered, table, {"answer": "much longer"})

    return make


def test_half_of_the_pairs_begin_with_the_challenger_and_each_has_one_order(pair):
    first = [pair(f"task {number}").challenger_is_first for number in range(400)]
    assert first == [pair(f"task {number}").challenger_is_first for number in range(400)]
    assert 140 < sum(first) < 260


def test_a_preference_is_the_challengers_whatever_the_order(pair):
    pairs = [pair(f"task {number}") for number in range(40)]
    assert {each.compare(prefers_brief) for each in pairs} == {1.0}
    assert {each.compare(favours_the_first) for each in pairs} == {1.0, -1.0}


def test_a_number_beyond_one_is_refused(pair):
    with pytest.raises(ValueError, match="from -1 to 1"):
        pair("task").compare(exaggerates)
