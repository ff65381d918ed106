"""The simulation of a fleet: beside what was measured on real parts, and what must hold in every run."""

import dataclasses

import pytest

from benchmarks.simulation.__main__ import markdown
from benchmarks.simulation.cases import CASES, outage
from benchmarks.simulation.measured import COSTS
from benchmarks.simulation.plan import MOST_LOAD, Assumptions, deployments, full_at, plan
from benchmarks.simulation.scenario import Scenario, SpineAway, WorkersKilled, run
from benchmarks.simulation.tables import RATES, scenario_of
from tests.support.processes import REPOSITORY

LEASE_SECONDS = 3.0
#: A small fleet of three spines, each worker at two of them.
FLEET = Scenario(
    spines=3, workers=6, threads=20, served=2, has_money_redis=True, questions=600, per_second=60.0,
    lease_seconds=LEASE_SECONDS,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_measured_case_is_simulated_within_its_stated_error(case):
    for seed in (1, 2, 3):
        ratio = case.simulate(COSTS, seed) / case.measured
        assert 1 / case.within <= ratio <= case.within, f"seed {seed}: {ratio:.2f} ×"


def test_costs_that_are_off_by_half_are_not_within_the_error_of_every_case():
    slow = dataclasses.replace(COSTS, worker_seconds=3 * COSTS.worker_seconds)
    ratios = [case.simulate(slow, 1) / case.measured / case.within for case in CASES if case.unit == "/s"]
    assert min(ratios) < 1 / CASES[0].within ** 2


def test_a_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (run(dataclasses.replace(FLEET, seed=seed), COSTS).delays() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_spine_that_is_away_loses_nothing_and_the_others_answer_as_ever():
    calm = run(dataclasses.replace(outage(1), faults=()), COSTS)
    broken = run(outage(1), COSTS)
    assert (broken.lost, broken.paid_again) == (0, 0)
    assert broken.delays(of_spine=0)[-1] > 4.0
    for spine in (1, 2):
        assert broken.delays(of_spine=spine)[-1] <= 1.2 * calm.delays(of_spine=spine)[-1]


def test_workers_that_serve_a_spine_which_is_away_answer_the_others_questions():
    outcome = run(dataclasses.replace(FLEET, faults=(SpineAway(3.0, 0, 4.0),)), COSTS)
    assert outcome.lost == 0
    assert max(outcome.delays(of_spine=1)[-1], outcome.delays(of_spine=2)[-1]) < 1.0


@pytest.mark.parametrize("seed", range(5))
def test_what_a_killed_worker_ran_is_answered_within_its_lease_and_a_second(seed):
    outcome = run(dataclasses.replace(FLEET, faults=(WorkersKilled(3.0, 1),), seed=seed), COSTS)
    assert outcome.lost == 0
    recovery = outcome.recovery(3.0)
    assert recovery
    assert recovery[-1] <= LEASE_SECONDS + 1
    assert outcome.paid_again <= len(recovery)


def test_nothing_is_answered_faster_than_the_one_redis_of_money_allows():
    scenario = Scenario(
        spines=4, workers=80, served=4, has_money_redis=True, questions=20_000, model_seconds=0.1, weight=10
    )
    outcome = run(scenario, COSTS)
    assert outcome.per_second == pytest.approx(1 / COSTS.money_seconds, rel=0.1)
    assert outcome.load(outcome.money) > 0.9


def test_questions_that_stand_for_several_load_the_fleet_as_those_would():
    loads = [
        run(dataclasses.replace(FLEET, threads=40, questions=2_000, per_second=100, weight=weight), COSTS)
        for weight in (1, 10)
    ]
    one, ten = ([outcome.load(each.station) for each in outcome.spines] for outcome in loads)
    assert sum(ten) == pytest.approx(sum(one), rel=0.1)
    assert loads[1].lost == 0


@pytest.mark.parametrize("rate", RATES)
def test_a_plan_keeps_to_its_loads_and_a_run_of_it_has_them(rate):
    one = plan(rate / deployments(rate, COSTS), COSTS)
    assert one.spine_load <= MOST_LOAD
    assert one.money_load <= MOST_LOAD
    outcome = run(scenario_of(one, 5.0), COSTS)
    assert outcome.lost == 0
    loads = [outcome.load(each.station) for each in outcome.spines]
    # The run goes on until the last model call has ended, some seconds after the last question.
    assert 0.4 * one.spine_load < sum(loads) / len(loads) <= 1.1 * one.spine_load


def test_more_spines_for_each_worker_are_more_connections_to_each_spine():
    few, many = (plan(5_000, COSTS, Assumptions(served=served)).spine_connections for served in (2, 0))
    assert few < many


def test_of_the_servers_one_for_all_is_full_first_and_money_before_connections():
    parts = [part for part in full_at(COSTS) if "Redis" in part or "spine" in part]
    assert parts[0] == "one Redis for all"
    assert parts.index("the Redis of money") < parts.index("one Redis: 10,000 connections")


@pytest.mark.journey
def test_the_page_has_the_tables_that_the_plan_prints():
    page = (REPOSITORY / "docs" / "scale.md").read_text()
    for table in markdown():
        assert table in page, f"python -m benchmarks.simulation prints it:\n{table}"
