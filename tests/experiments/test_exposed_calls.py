"""Calls of enrolled units in a producer: their place and question are worked out once, their token when it is read."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import time
from types import SimpleNamespace

import pytest

from dspyq.experiments import administration
from dspyq.experiments.exposure import QuestionBuckets
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import bucket_of_question, place
from dspyq.prediction.enrolment import enrol
from dspyq.prediction.prediction import Metadata
from tests.support.experiments import with_experiment

DAY = 86_400


@pytest.fixture
def program(configure, settings_file):
    return configure(settings_file(with_experiment(), challenger=0.5)).programs["qa"]


@pytest.fixture
def state(program):
    state = administration.start(program)
    process_states().learn("qa", str(state.version), state.dump())
    return state


def exposed(program, unit="user", question=b'{"question":"hi"}', input_hash="ab"):
    enrolment = enrol(program, question, unit)
    return enrolment.exposed and enrolment.exposed.asking(input_hash, question)


def test_a_unit_that_comes_back_has_the_place_of_its_hash(program, state):
    for unit in ("one", "two", "one", "x" * 1_000, "x" * 1_000):
        placed, call = place(state.placing, unit), exposed(program, unit)
        assert (call.arm, call.unit_bucket, call.cell) == (placed.variant, placed.bucket, placed.cell)


def test_no_kept_place_outlives_a_change_of_the_state(program, state):
    assert exposed(program) is not None
    for change in ({"status": "paused"}, {"status": "running", "coverage": 0.0}, {"coverage": 1.0, "status": "off"}):
        state = state.changed(**change)
        process_states().learn("qa", str(state.version), state.dump())
        assert exposed(program) is None
        assert enrol(program, b"{}", "user").seen == str(state.version)


@pytest.mark.usefixtures("state")
def test_a_call_is_of_the_day_on_which_it_is_made(program, monkeypatch):
    found = []
    for day in (20_000, 20_000, 20_001, 20_000):  # a clock may be put back
        monkeypatch.setattr("dspyq.prediction.enrolment.time", SimpleNamespace(time=lambda day=day: day * DAY + 1.0))
        found.append(exposed(program).day)
    assert found == [20_000, 20_000, 20_001, 20_000]


def test_a_question_has_one_bucket_however_many_are_kept():
    buckets = QuestionBuckets("qa/test")
    for number in (*range(9_000), *range(0, 9_000, 7)):
        question = b"%d" % number
        assert buckets.of(f"{number}", question) == bucket_of_question("qa/test", question)


@pytest.fixture
def metadata():
    made = []
    metadata = Metadata("qa", "control", "model", "ab", "a request", time.time())
    del vars(metadata)["exposure"]  # as metadata that were read have none
    metadata.expose(lambda: made.append("x1") or "x1")
    return SimpleNamespace(of_call=metadata, made=made)


def test_a_token_is_made_once_and_when_it_is_read(metadata):
    assert metadata.of_call.is_truncated is False
    assert not metadata.made
    assert [metadata.of_call.exposure, metadata.of_call.exposure, metadata.made] == ["x1", "x1", ["x1"]]


def sent(metadata):
    return pickle.loads(pickle.dumps(metadata))  # noqa: S301 - its own


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, dataclasses.replace, sent])
def test_a_copy_of_metadata_has_their_token_and_no_function(metadata, copied):
    copied_metadata = copied(metadata.of_call)
    assert copied_metadata.exposure == "x1"
    assert copied_metadata == metadata.of_call
    assert not [name for name, value in vars(copied_metadata).items() if callable(value)]


def test_metadata_without_a_call_that_counts_have_no_token():
    assert Metadata("qa", "control", "model", "ab", "a request", 1.0).exposure is None
