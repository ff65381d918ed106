"""Feedback over HTTP, of calls that an experiment counts, against a real server and a real worker."""

from __future__ import annotations

import itertools
import json

import pytest

from dspyq.cache.judgements import MOST_NAMES
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
    assert comments(judged, asked["id"]) == [
        {"name": "stars", "value": 2, "comment": None},
        {"name": "thumbs", "value": 1, "comment": None},
    ]
    assert judge(judged, asked["id"], "unknown", 1).status_code == 422
    assert judge(judged, asked["id"], "thumbs", 3).status_code == 422
    judged.api.delete(asked["urls"]["self"])
    assert judge(judged, asked["id"], "thumbs", 1).status_code == 404


def comments(server, prediction):
    return server.api.get(f"/v1/predictions/{prediction}/feedback").json()["data"]


@pytest.mark.usefixtures("shared_worker")
def test_a_judgement_of_no_experiment_is_counted_once_for_its_variant(shared_door, dspyq):
    first = shared_door.ask("of no experiment").json()
    again = shared_door.ask("of no experiment").json()
    reply = judge(shared_door, first["id"], "thumbs", 1)
    assert (reply.status_code, reply.json()["outcome"]) == (201, "new")
    assert judge(shared_door, first["id"], "thumbs", 1).json()["outcome"] == "same"
    other = judge(shared_door, first["id"], "thumbs", 0)
    assert (other.status_code, other.json()["type"].rpartition("/")[2]) == (409, "feedback-kept")
    assert judge(shared_door, again["id"], "thumbs", 0.5).json()["outcome"] == "new"
    (row,) = json.loads(dspyq("variants", "--json").stdout)
    assert row["feedback"] == {"thumbs": {"count": 2, "mean": 0.75}}
    assert "thumbs" in dspyq("variants").stdout


@pytest.mark.usefixtures("shared_worker")
def test_what_cannot_be_judged_is_refused(shared_door, endpoint):
    asked = shared_door.ask("to be judged").json()
    assert judge(shared_door, "pred_x", "thumbs", 1).status_code == 404
    for name, value in (("thumbs", "good"), ("a b", 1), ("", 1), ("thumbs", True), ("thumbs", 1e6), (1, 1)):
        assert judge(shared_door, asked["id"], name, value).status_code == 422, (name, value)
    names = [judge(shared_door, asked["id"], f"name_{number}", 1).status_code for number in range(MOST_NAMES + 1)]
    assert names == [201] * MOST_NAMES + [409]
    endpoint.hold()
    waiting = shared_door.ask("not answered", prefer="respond-async").json()["id"]
    assert judge(shared_door, waiting, "name_1", 1).json()["type"].rpartition("/")[2] == "feedback-refused"
    endpoint.release()


@pytest.mark.usefixtures("shared_worker")
def test_a_comment_is_kept_for_its_caller_until_it_deletes_the_call_and_is_in_no_log(door):
    server = door()
    asked = server.ask("to be commented").json()["id"]
    place = f"/v1/predictions/{asked}/feedback"
    given = {"name": "thumbs", "value": 0, "comment": "It misses Ms Finch's second question."}
    assert server.api.post(place, json=given).status_code == 201
    assert comments(server, asked) == [given]
    assert server.api.post(place, json=given | {"comment": 7}).status_code == 422
    assert server.api.post(place, json=given | {"comment": "x" * 5_000}).status_code == 422
    server.api.delete(f"/v1/predictions/{asked}")
    assert server.api.get(place).status_code == 404
    assert "Finch" not in server.logs()
