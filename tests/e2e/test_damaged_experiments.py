"""Keys of an experiment that hold what no process of ours wrote cost its counts, and no question."""

from __future__ import annotations

import time

import orjson
import pytest

from dspyq.core.tolerated import tolerated
from dspyq.experiments import administration
from dspyq.experiments.known import process_states
from dspyq.experiments.state import ExperimentState, UnreadableState
from dspyq.store.keys import (
    experiment_refused_key,
    experiment_state_key,
    experiment_sums_key,
    key,
)
from tests.support.experiments import with_experiment
from tests.support.journeys import few_of


@pytest.fixture
def program(settings_file, configure, worker):
    changes = with_experiment(
        feedback={"thumbs": {"low": 0, "high": 1}},
        scores={"grounded": {"scorer": "json:dumps", "low": 0, "high": 1}},
    )
    changes["programs"]["qa"]["scorers"] = ["json:dumps"]
    path = settings_file(changes, challenger=0.5)
    program = configure(path).programs["qa"]
    worker(path)
    return program


def answers(*, unit="user", first=0):
    """Ask on each road: anew, joined, from both caches, in bulk, under an id of the caller's."""
    from dspyq import predict

    names = [f"question {first + number}" for number in range(3)]
    handles = [predict.apply_async(kwargs={"question": name}, unit=unit) for name in (names[0], *names)]
    handles += predict.many([{"question": name} for name in (*names, f"row {first}")], unit=unit)
    handles += [predict.apply_async(kwargs={"question": names[0]}, unit=unit, task_id=f"own {first}")]
    found = [handle.get(timeout=20) for handle in handles]
    found.append(predict.apply_async(kwargs={"question": names[0]}, unit=unit).get(timeout=20))
    return found


def test_a_state_of_another_type_leaves_questions_to_the_files_weights(program, client):
    administration.start(program)
    assert answers()[0].metadata.exposure is not None
    client.delete(experiment_state_key("qa"))
    client.set(experiment_state_key("qa"), "a stranger's text")
    assert [answer.metadata.exposure for answer in answers(first=10)][1] is None
    process_states().forget("qa")
    assert {answer.metadata.exposure for answer in answers(first=20)} == {None}


@pytest.mark.parametrize(
    "changes",
    few_of(
        [
            {"state": b"\xff no JSON"},
            {"state": b"[]"},
            {"version": b"next"},
            {"changes": {"draws": 0}},
            {"changes": {"status": "layered"}},
            {"changes": {"unit": "session"}},
            {"changes": {"epoch": "two words"}},
            {"changes": {"serve": ["control"]}},
            {"changes": {"slow_wait_seconds": "soon"}},
        ],
        3,
    ),
    ids=lambda changes: str(changes)[1:40],
)
def test_a_state_that_cannot_be_read_leaves_questions_to_the_files_weights_and_is_counted(program, client, changes):
    state = administration.start(program)
    if "changes" in changes:
        stated = orjson.loads(state.dump()) | changes["changes"]
        with pytest.raises(UnreadableState):
            ExperimentState.read("qa", 2, orjson.dumps(stated))
        changes = {"state": orjson.dumps(stated)}
    client.hset(experiment_state_key("qa"), mapping={"version": state.version + 1} | changes)
    before = tolerated("experiment_state")
    found = answers()
    assert found[-1].metadata.exposure is None
    assert tolerated("experiment_state") > before
    assert process_states().get("qa") is None  # nor does it serve what memory holds by the state before


def test_a_damaged_secret_costs_the_tokens_alone(program, client):
    administration.start(program)
    client.delete(key("experiment-secret"))
    client.rpush(key("experiment-secret"), "a stranger's list")
    before = tolerated("experiment_token")
    assert {answer.metadata.exposure for answer in answers()} == {None}
    assert tolerated("experiment_token") > before


@pytest.mark.parametrize(
    "damaged",
    few_of(
        ["calls:u", "calls:q", "answers:q", "times", "exposed", "seen", "units", "counting", "unscored", "answers:u"], 3
    ),
)
def test_damaged_counts_cost_no_answer(program, client, damaged):
    state = administration.start(program)
    base, today = experiment_sums_key("qa", state.epoch), int(time.time() // 86_400)
    if damaged == "counting":
        client.hset(experiment_state_key("qa"), "counting", f"{state.epoch} x")
    else:
        names = {
            "units": [base + "units"],
            "seen": [base + "seen"],
            "unscored": [key("experiment-unscored:") + "qa"],
            "exposed": [base + f"{arm}:exposed:{day}:u" for arm in state.arms for day in (today - 1, today, today + 1)],
        }.get(damaged) or [base + f"{arm}:{damaged}" for arm in state.arms]
        client.delete(*names)
        for name in names:
            client.rpush(name, "a stranger's list")
    found = answers() + answers(unit="another", first=10)
    assert all(answer.answer for answer in found)
    if damaged != "counting":
        assert int(client.hget(experiment_refused_key("qa"), "damaged")) > 0
