"""A worker's looks at experiments: one worker at a time, and what its guards refuse."""

from __future__ import annotations

import json
import time

import pytest

from dspyq.config.periods import process_calendar
from dspyq.errors import PredictionFailed
from dspyq.experiments import administration
from dspyq.experiments.looks_store import read_looks
from dspyq.experiments.placement import place
from dspyq.guards.billing import Bill
from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.budget import Budget
from dspyq.guards.limits import Limits
from dspyq.store.keys import key, referee_key
from dspyq.worker.arm_refusals import ArmRefusals
from dspyq.worker.refereeing import Refereeing
from tests.support.budgets import call, do
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until


@pytest.fixture
def path(settings_file):
    def write(**changes):
        stated = with_experiment(ramp=[{"coverage": 0.1, "hours": 0.000_1}, {"coverage": 1.0}], **changes)
        stated["programs"]["qa"]["variants"] = {"challenger": {"daily_usd": 1e-7}}
        return settings_file(stated, challenger=0.5)

    return write


@pytest.fixture
def settings(path, configure):
    return configure(path())


@pytest.fixture
def state(settings):
    return administration.start(settings.programs["qa"])


def test_one_worker_at_a_time_looks(settings, state, client):
    one, two = (Refereeing(settings, client, name) for name in ("one", "two"))
    one.look()
    two.look()
    assert read_looks(state).tracks.number == 1
    assert client.get(referee_key()).startswith(b"one ")
    one.look()
    assert read_looks(state).tracks.number == 2
    client.delete(referee_key())  # as after its lease
    two.look()
    assert read_looks(state).tracks.number == 3
    assert 20_000 < client.pttl(referee_key()) <= 30_000


def test_an_experiment_whose_plan_cannot_be_read_keeps_no_other_from_being_looked_at(settings, state, client, caplog):
    client.hset(key("experiment-state:qa"), "plan", b"[")
    Refereeing(settings, client, "one").look()
    assert read_looks(state).latest is None
    assert str(caplog.records[-1].msg).startswith("experiment_not_looked_at program=qa")


def test_an_open_breaker_refuses_the_calls_of_an_arm(settings, state, client):
    refusals = ArmRefusals(settings, client)
    assert refusals(state) == ({}, {})
    model = settings.programs["qa"].variants["challenger"].model
    FleetBreaker(client, model.name, BreakerPolicy.of(settings, model)).command("open")
    assert refusals(state).for_a_while == {"challenger": f"the circuit breaker of {model.name} is not closed"}


def test_a_budget_that_has_refused_a_call_refuses_the_calls_of_an_arm_until_there_is_more(settings, state, client):
    refusals, budget = ArmRefusals(settings, client), Budget(client, settings, process_calendar())
    do(client, budget.hold(call(1, variant="challenger"), 60))
    assert refusals(state).until_later == {}  # held, and perhaps not spent
    do(client, budget.settle(call(1, variant="challenger"), Bill(60)))
    assert do(client, budget.hold(call(2, variant="challenger"), 50)).verdict == "exhausted"
    assert refusals(state).until_later == {"challenger": "its daily budget is used up"}
    Limits(client, settings, process_calendar()).override("variant:qa.challenger", "daily", 1000)
    assert refusals(state).until_later == {}


def test_a_worker_follows_the_ramp_by_itself(path, worker, dspyq):
    settings = path()
    worker(settings)
    dspyq("experiment", "start", "qa", settings=settings)

    def coverage():
        time.sleep(0.5)  # each look is a process
        found = json.loads(dspyq("experiment", "log", "qa", "--json", settings=settings).stdout)
        return [(entry["what"], entry["detail"]) for entry in found]

    wait_until(lambda: ("ramp", "1") in coverage(), 60, "the worker to follow the ramp")


def test_a_worker_rolls_a_failing_challenger_back_by_itself(settings_file, configure, worker, endpoint):
    from dspyq import predict

    program = configure(path := settings_file(with_experiment(), challenger=0.5)).programs["qa"]
    worker(path)
    state = administration.start(program)

    def ask(unit):
        return predict.apply_async(kwargs={"question": f"of {unit}"}, unit=unit)

    units = [f"user {number}" for number in range(60)]
    arms = {unit: place(state.placing, unit).variant for unit in units}
    for unit in (each for each, arm in arms.items() if arm == "control"):
        ask(unit).get(timeout=20)
    endpoint.script(status=400)
    for unit in (unit_of_challenger := [each for each, arm in arms.items() if arm == "challenger"]):
        with pytest.raises(PredictionFailed):
            ask(unit).get(timeout=20)
    endpoint.clear()
    wait_until(lambda: administration.read_state("qa").status == "stopped", 30, "the worker to roll it back")
    found = administration.read_state("qa")
    assert (found.serve, found.killed, found.acted) == ("control", ("challenger",), ("breach challenger call.failed",))
    assert ask(unit_of_challenger[0]).get(timeout=20).metadata.variant == "control"
