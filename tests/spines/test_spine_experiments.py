"""Experiments over several spines: counts are exact over all, and a change reaches each."""

import json
import time

import pytest

from dspyq.client.predict import process_predict
from dspyq.core.days import day_at
from dspyq.errors import PredictionFailed
from dspyq.experiments import administration
from dspyq.experiments.feedback import give_feedback
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import place
from dspyq.experiments.rows import read_rows
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.store.clients import money_client
from dspyq.store.spines import each_spine, process_spines
from dspyq.worker.refereeing import Refereeing
from tests.support.experiments import with_experiment
from tests.support.spine_questions import one_of_each

pytestmark = pytest.mark.journey

STATE = "dspy:v1:experiment-state:qa"
FEEDBACK = {"thumbs": {"low": 0, "high": 1}}
UNITS, QUESTIONS = [f"user {number}" for number in range(12)], [f"question {number}" for number in range(20)]


@pytest.fixture
def settings_path(settings_file):
    return settings_file(with_experiment(feedback=FEEDBACK, keep_rows=1_000), challenger=0.5)


@pytest.fixture
def program(configure_spines, settings_path):
    return configure_spines(settings_path).programs["qa"]


@pytest.fixture
def started(program):
    return administration.start(program)


@pytest.fixture
def predict(started):
    del started
    return process_predict()


@pytest.fixture
def _worker(spine_worker, settings_path, started):
    del started
    spine_worker(settings_path)


def copies(spines, field="version"):
    return [server.client().hget(STATE, field) for server in spines.servers]


def readings(state):
    for _ in each_spine():
        process_tally().flush()
    return read_sums(state, administration.read_plan("qa").table, today=day_at(time.time()))


def ask(predict, unit, question):
    return predict.apply_async(kwargs={"question": question}, unit=unit)


@pytest.mark.usefixtures("_worker")
def test_units_calls_failures_hits_and_rows_are_counted_once_over_all_spines(predict, started, endpoint):
    endpoint.script(containing="question 3", status=400)
    handles = [(unit, ask(predict, unit, question)) for question in QUESTIONS for unit in UNITS]
    failed = 0
    for _, handle in handles:
        try:
            handle.get(timeout=60)
        except PredictionFailed:
            failed += 1
    assert {process_spines().of(handle.request.input_hash).number for _, handle in handles} == {0, 1, 2}
    asked_again = [(unit, ask(predict, unit, "question 1")) for unit in UNITS]
    assert all(handle.get(timeout=5).metadata.cached for _, handle in asked_again)
    found = readings(started)
    for arm, reading in found.items():
        own = {unit for unit in UNITS if place(started.placing, unit).variant == arm}
        assert own
        assert reading.units == len(own)
        assert sum(reading.metrics["call.failed"].by_question.denominators) == len(own) * (len(QUESTIONS) + 1)
    assert sum(sum(each.metrics["call.failed"].by_question.numerators) for each in found.values()) == failed > 0
    answered = sum(sum(each.metrics["answer.cost"].by_question.denominators) for each in found.values())
    assert answered == 2 * (len(QUESTIONS) - 1)
    rows = list(read_rows(started))
    assert len(rows) == answered
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    assert sum(row.served for row in rows) == len(handles) - failed + len(asked_again)


@pytest.mark.usefixtures("_worker")
def test_a_judgement_is_counted_once_and_beside_its_question(predict, started):
    handles = [ask(predict, unit, question) for unit in UNITS[:4] for question in QUESTIONS[:5]]
    tokens = [handle.get(timeout=60).metadata.exposure for handle in handles]
    assert [give_feedback(token, "thumbs", 1) for token in tokens] == ["new"] * len(tokens)
    assert [give_feedback(token, "thumbs", 1) for token in tokens] == ["same"] * len(tokens)
    assert sum(row.judgements["thumbs"].number for row in read_rows(started) if row.judgements) == len(tokens)


@pytest.mark.usefixtures("started")
def test_each_change_is_on_all_spines_and_a_kill_where_calls_begin(spines):
    assert copies(spines) == ["1"] * 3
    administration.kill("qa", "challenger")
    assert copies(spines) == ["2"] * 3
    assert money_client().smembers("dspy:v1:killed-arms") == {b"qa.challenger"}
    administration.stop("qa")
    assert all(json.loads(each)["status"] == "stopped" for each in copies(spines, "state"))
    assert not any(spines.keys("dspy:v1:killed-arms"))


def miss(spines):
    """Give a spine the version of before the latest change, as if it had been away."""
    spines.servers[1].client().hset(STATE, mapping={"version": "1", "change": "an earlier one"})


def of_each(unit):
    """Return a question of each spine, as the state that is known now places this unit."""
    return one_of_each("asked", unit=unit)


@pytest.mark.usefixtures("started")
def test_a_call_that_a_spine_refuses_by_an_older_state_brings_it_the_latest(spines, predict):
    state = administration.ramp("qa", 0.5)
    miss(spines)
    for question in of_each("user 1"):
        assert ask(predict, "user 1", question).request.seen == str(state.version)
    assert copies(spines) == ["2"] * 3
    assert process_states().get("qa").version == state.version


def test_a_spine_that_was_emptied_does_not_end_the_experiment_of_its_callers(spines, predict, started):
    spines.servers[2].flush()
    for question in of_each("user 1"):
        ask(predict, "user 1", question)
    assert copies(spines) == ["1"] * 3
    assert process_states().get("qa") == started


@pytest.mark.usefixtures("started")
def test_the_referee_brings_a_spine_what_it_has_missed_and_the_home_what_it_has_lost(spines):
    from dspyq.config.settings import get_settings

    administration.ramp("qa", 0.5)
    miss(spines)
    Refereeing(get_settings(), money_client(), "referee").look()
    assert copies(spines) == ["2"] * 3
    spines.money.flush()
    assert administration.read_state("qa").version == 2
    spines.money.client().hset(STATE, "version", "1")
    Refereeing(get_settings(), money_client(), "another").look()
    assert spines.money.client().hget(STATE, "version") == "2"


def test_a_look_is_postponed_while_a_spine_is_away_and_that_is_logged_once(spines, started, caplog):
    from dspyq.config.settings import get_settings
    from dspyq.experiments.looks_store import read_looks

    refereeing = Refereeing(get_settings(), money_client(), "referee")
    refereeing.look()
    spines.servers[1].process.kill()
    for _ in range(2):
        refereeing.look()
    assert read_looks(started).tracks.number == 1
    assert [record.msg.name for record in caplog.records].count("experiment_look_postponed") == 1
    administration.pause("qa")
    spines.servers[1].restart()
    refereeing.look()
    assert copies(spines) == ["2"] * 3
    assert read_looks(started).tracks.number == 2
