"""``dspyq experiment simulate``: rows, calls, days and chances, by hand where that is possible."""

from __future__ import annotations

import json

import pytest

from dspyq.cli.experiment_simulation import Assumptions, fault_of_baseline, simulate_plan
from dspyq.config.experiments import Experiment
from tests.support.experiments import TABLE, with_experiment


def table(**changes):
    return Experiment.model_validate(TABLE | changes).model_dump(mode="json")


def plan(assumed, **changes):
    return simulate_plan(table(primary="call.failed", **changes), assumed, paths=400)


#: 1.2 · (1.96 + 0.84)² / 0.02² = 23,547 of information; times 0.1 · 0.9 · 2 arms · 2 = 8,477 rows.
ASSUMED = Assumptions(calls_per_day=1000, baseline=0.1, calls_per_unit=1)


def test_the_rows_and_days_are_those_of_a_calculation_by_hand():
    found = plan(ASSUMED, minimum_effect=0.02)
    assert found.rows == found.calls == pytest.approx(8477, abs=1)
    assert found.days == pytest.approx(8.477, abs=0.001)
    chance = next(each for each in found.found if each.share == 1)
    assert chance.found == pytest.approx(0.8, abs=0.06)
    assert next(each for each in found.without_effect if each.share == 1).found <= 0.05


def test_the_ramp_takes_longer():
    """A day at a tenth has 100 calls, the other 8,377 come at a half."""
    found = plan(ASSUMED, minimum_effect=0.02, ramp=[{"coverage": 0.1, "hours": 24}, {"coverage": 0.5}])
    assert found.days == pytest.approx(1 + 8377 / 500, abs=0.01)


def test_rows_of_one_unit_that_are_alike_need_more():
    alike = Assumptions(1000, 0.1, calls_per_unit=11, correlation=0.1)
    assert plan(alike, minimum_effect=0.02).rows == pytest.approx(2 * 8477, abs=2)


def test_a_share_of_a_cost_needs_the_spread_of_a_cost():
    """(2.8 / ln 1.05)² · 1.2 times (0.5 / 1)² · 4."""
    assumed = Assumptions(1000, 0.002, deviation=0.001, calls_per_unit=1)
    found = simulate_plan(table(primary="answer.cost"), assumed, paths=50)
    assert found.rows == pytest.approx(3957, rel=0.001)


def test_answers_behind_a_cache_need_more_calls_than_answers_or_never_come():
    many, few = (
        simulate_plan(table(primary="answer.cost"), Assumptions(1000, 1, 0.5, n, calls_per_unit=1), paths=50)
        for n in (50_000, 1000)
    )
    assert many.calls > 2 * many.rows
    assert (few.calls, few.days) == (None, None)


@pytest.mark.parametrize(
    ("primary", "baseline", "deviation", "fault"),
    [
        ("call.failed", 1.2, None, "call.failed is 0 to 1, and so is its baseline"),
        ("call.failed", 0.0, None, "with every row at 0 there is no spread"),
        ("call.failed", 0.0, 0.1, None),
        ("answer.cost", 0.0, 0.1, "the baseline of answer.cost is above 0"),
        ("answer.mood", 0.0, None, None),
        ("answer.mood", -1.1, 0.5, "answer.mood is -1 to 1"),
    ],
)
def test_a_baseline_that_no_mean_can_be_is_refused(primary, baseline, deviation, fault):
    scores = {"mood": {"scorer": "quality:mood", "low": -1, "high": 1}}
    stated = table(primary=primary, minimum_effect="5 %" if primary == "answer.cost" else 0.02, scores=scores)
    found = fault_of_baseline(stated, Assumptions(1000, baseline, deviation))
    assert (found is None) if fault is None else found.startswith(fault)


@pytest.mark.journey
def test_the_command_shows_what_the_file_states(dspyq, settings_file):
    path = settings_file(with_experiment(primary="call.failed", minimum_effect=0.02), challenger=0.5)
    arguments = ("experiment", "simulate", "qa", "--calls-per-day", "1000", "--baseline", "0.1")
    shown = dspyq(*arguments, "--calls-per-unit", "1", settings=path).stdout
    assert "It needs 8,477 rows for 80 % power: 8,477 counted calls, 8.5 days by the ramp" in shown
    found = json.loads(dspyq(*arguments, "--json", settings=path).stdout)
    assert (found["experiment"], found["assumed"]["calls_per_unit"]) == ("first", 5.0)
    assert found["found"][1]["share"] == 1.0
