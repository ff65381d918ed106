"""Days of judgements that are complete: folded into one array, each once, and read as before."""

from __future__ import annotations

import pytest

from dspyq.experiments import administration
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.folding import fold_mature_days
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.store.keys import experiment_sums_key
from dspyq.store.scripts import load_script
from tests.support.experiments import with_experiment

FEEDBACK = {"stars": {"low": 1, "high": 5, "window_days": 3}}


@pytest.fixture
def run(configure, settings_file):
    program = configure(settings_file(with_experiment(feedback=FEEDBACK), challenger=0.5)).programs["qa"]
    state = administration.start(program)
    return state, administration.plan_of(program).table, int(state.started_at // 86_400)


@pytest.fixture
def judge(run, client):
    """Count a call of a day, and its judgement."""
    state, _, first = run

    def take(day, said, value=500_000, unit=5):
        exposure = Exposure("qa", state.epoch, "control", unit, 1023, unit, first + day)
        for _ in range(2):
            process_tally().count(exposure, "an answer", 0.0, is_slow=False)
        process_tally().flush()
        load_script(client, "dspyq.experiments", "feedback")(
            program="qa", exposure=exposure.stated(), question="00000000", name="stars", said=said, value=value,
            window_seconds=60, replaces="",
        )  # fmt: skip

    return take


def days(client, state):
    base = experiment_sums_key("qa", state.epoch)
    return {name.decode().split(":")[-2] for name in client.keys(f"{base}control:*[eds]:[0-9m]*")} - {"calls"}


def read(run, day):
    state, table, first = run
    return read_sums(state, table, today=first + day)["control"].metrics


def test_folding_changes_no_sum_and_leaves_one_array(run, judge, client):
    state, table, first = run
    for number, day in enumerate((0, 0, 1, 2, 6)):
        judge(day, str(number), value=100_000 * number, unit=number)
    before = read(run, 6)  # days 0 to 2 are mature
    assert sum(before["feedback.stars"].by_unit.denominators) == 4
    assert fold_mature_days(state, table, folded_day=0, today=first + 6) == first + 2
    assert read(run, 6) == before
    assert days(client, state) == {"mature", str(first + 6)}


def test_folding_twice_adds_nothing_twice(run, judge):
    state, table, first = run
    judge(0, "a")
    for _ in range(2):
        fold_mature_days(state, table, folded_day=0, today=first + 9)
    assert sum(read(run, 9)["feedback.stars"].by_question.denominators) == 1


def test_a_judgement_that_came_as_its_day_was_folded_is_folded_the_next_day(run, judge, client):
    state, table, first = run
    judge(0, "a")
    folded = fold_mature_days(state, table, folded_day=0, today=first + 5)
    judge(0, "late")
    assert sum(read(run, 5)["feedback.stars"].by_question.denominators) == 2
    fold_mature_days(state, table, folded_day=folded, today=first + 6)
    assert sum(read(run, 6)["feedback.stars"].by_question.denominators) == 2
    assert days(client, state) == {"mature"}


def test_days_of_a_fleet_without_a_worker_for_a_month_are_folded_all(run, judge):
    state, table, first = run
    for day in range(30):
        judge(day, str(day))
    fold_mature_days(state, table, folded_day=0, today=first + 40)
    assert sum(read(run, 40)["feedback.stars"].by_question.denominators) == 30


def test_a_folded_array_has_an_end_and_a_later_experiment_leaves_it_alone(run, judge, client):
    state, table, first = run
    judge(0, "a")
    fold_mature_days(state, table, folded_day=0, today=first + 9)
    array = experiment_sums_key("qa", state.epoch) + "control:feedback:stars:mature:u"
    assert client.ttl(array) > 0
    assert load_script(client, "dspyq.experiments", "fold")(program="qa", epoch="gone", arrays=["a", "b"]) == 0
