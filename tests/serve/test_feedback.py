"""Feedback over HTTP, of calls that an experiment counts, against a real server and a real worker."""

from __future__ import annotations

import itertools

import pytest

from dspyq.experiments import administration
from tests.support.experiments import with_experiment
from tests.support.processes import eventually


@pytest.fixture
def judged(configure, settings_file, worker, door):
    """A server of a program whose experiment runs, and takes judgements."""
    feedback = {"thumbs": {"low": 0, "high": 1}, "stars": {"low": 1, "high": 5, "replace": True}}
    path = settings_file(with_experiment(feedback=feedback), challenger=0.5)
    program = configure(path).programs["qa"]
    worker(path)
    administration.start(program)
    server = door(path)
    numbers = itertools.count()
    eventually(lambda: server.ask("counted", unit=f"u{next(numbers)}").json()["metadata"]["exposure"])
    return server


def exposed(server, prefix):
    """A unit that the experiment counts: its ramp begins with a share of them."""
    for number in range(100):
        unit = f"{prefix}{number}"
        if server.ask(prefix, unit=unit).json()["metadata"]["exposure"]:
            return unit
    raise AssertionError("no unit is counted")


def judge(server, prediction, name, value):
    return server.api.post(f"/v1/predictions/{prediction}/feedback", json={"name": name, "value": value})


def test_a_judgement_is_counted_once_for_the_call_that_its_id_names(judged):
    unit = exposed(judged, "judged")
    asked = judged.ask("judged", unit=unit).json()
    reply = judge(judged, asked["id"], "thumbs", 1)
    assert (reply.status_code, reply.json()["outcome"]) == (201, "new")
    assert judge(judged, asked["id"], "thumbs", 1).json()["outcome"] == "same"
    other = judge(judged, asked["id"], "thumbs", 0)
    assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (409, "feedback-kept")
    assert judge(judged, asked["id"], "stars", 4).status_code == 201
    assert judge(judged, asked["id"], "stars", 2).json()["outcome"] == "replaced"
    # Another call of the question, from memory, has a judgement of its own; so has a row of many.
    again = judged.ask("judged", unit=unit).json()
    assert again["metadata"]["cached"] is True
    assert judge(judged, again["id"], "thumbs", 0).json()["outcome"] == "new"
    rows = judged.api.post("/v1/programs/qa/predictions:batch", json={"rows": [{"question": "a row"}], "unit": unit})
    assert judge(judged, rows.json()["predictions"][0]["id"], "thumbs", 1).json()["outcome"] == "new"
    assert judge(judged, asked["id"], "unknown", 1).status_code == 422
    assert judge(judged, asked["id"], "thumbs", 3).status_code == 422
    judged.api.delete(asked["urls"]["self"])
    assert judge(judged, asked["id"], "thumbs", 1).status_code == 404


@pytest.mark.usefixtures("shared_worker")
def test_a_prediction_of_no_experiment_takes_no_feedback(shared_door):
    asked = shared_door.ask("of no experiment").json()
    assert judge(shared_door, asked["id"], "thumbs", 1).json()["type"].rpartition("/")[2] == "feedback-refused"
    assert judge(shared_door, "pred_x", "thumbs", 1).status_code == 404
    assert judge(shared_door, asked["id"], "thumbs", "good").status_code == 422
