"""Feedback: counted once for the exposure that its token names, or refused in one line that states why."""

from __future__ import annotations

import time

import pytest

from dspyq.errors import FeedbackRefused
from dspyq.experiments import administration
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.feedback import give_feedback
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.token import ForgedToken, make_token, process_secret, read_token
from dspyq.store.keys import experiment_refused_key, key
from tests.support.experiments import with_experiment

TODAY = int(time.time() // 86_400)
FEEDBACK = {"thumbs": {"low": 0, "high": 1}, "stars": {"low": 1, "high": 5, "window_days": 7, "replace": True}}


@pytest.fixture
def started(configure, settings_file):
    program = configure(settings_file(with_experiment(feedback=FEEDBACK), challenger=0.5)).programs["qa"]
    return administration.start(program), administration.plan_of(program).table


@pytest.fixture
def token(started):
    state, _ = started

    def make(day=TODAY, request_id="a call"):
        exposure = Exposure("qa", state.epoch, "challenger", 1_023, 0, 8_388_607, day)
        return make_token(exposure, request_id, b"{}")

    return make


def sums(started, metric):
    clusters = read_sums(*started, today=TODAY + 9)["challenger"].metrics[metric].by_unit
    return sum(clusters.denominators), sum(clusters.numerators)


def test_a_token_names_its_exposure(token, started):
    read = read_token(token())
    assert read.exposure == Exposure("qa", started[0].epoch, "challenger", 1_023, 0, 8_388_607, TODAY)
    assert read.nonce == read_token(token(day=TODAY - 1)).nonce != read_token(token(request_id="another")).nonce


def test_a_judgement_is_counted_once(token, started):
    assert [give_feedback(token(), "thumbs", 1), give_feedback(token(), "thumbs", 1)] == ["new", "same"]
    assert give_feedback(token(), "thumbs", 0) == "kept"
    assert give_feedback(token(request_id="another"), "thumbs", 0) == "new"
    assert sums(started, "feedback.thumbs") == (2, 1)


def test_a_judgement_that_may_be_replaced_is(token, started):
    assert [give_feedback(token(), "stars", 2), give_feedback(token(), "stars", 5)] == ["new", "replaced"]
    assert sums(started, "feedback.stars") == (1, 5)


@pytest.mark.parametrize(
    ("name", "value", "day", "reason", "line"),
    [
        ("smiles", 1, TODAY, "unknown", "no feedback of that name; it has thumbs, stars"),
        ("thumbs", 2, TODAY, "range", "thumbs is a number from 0 to 1"),
        ("thumbs", float("nan"), TODAY, "range", "thumbs is a number from 0 to 1"),
        ("thumbs", "1", TODAY, "range", "thumbs is a number from 0 to 1"),
        pytest.param("thumbs", 10**400, TODAY, "range", "thumbs is a number from 0 to 1", id="no float is so large"),
        ("thumbs", 1, TODAY - 4, "late", "thumbs is taken for 3 days after the answer"),
    ],
)
def test_a_judgement_that_is_not_counted_is_refused_and_that_is_counted(token, client, name, value, day, reason, line):
    with pytest.raises(FeedbackRefused, match=line):
        give_feedback(token(day=day), name, value)
    assert client.hgetall(experiment_refused_key("qa")) == {reason.encode(): b"1"}


def test_feedback_for_an_experiment_that_another_has_replaced_is_refused(token, configure, settings_file):
    old = token()
    administration.stop("qa")
    second = with_experiment(name="second", feedback=FEEDBACK)
    administration.start(configure(settings_file(second, challenger=0.5)).programs["qa"])
    with pytest.raises(FeedbackRefused, match="the experiment it was given for is no more"):
        give_feedback(old, "thumbs", 1)


def test_feedback_is_taken_after_the_experiment_has_ended(token, started):
    administration.stop("qa")
    assert give_feedback(token(), "thumbs", 1) == "new"
    assert sums(started, "feedback.thumbs") == (1, 1)


@pytest.mark.parametrize("place", range(10))
def test_a_token_with_another_character_anywhere_is_refused(token, place):
    parts = token().split(".")
    parts[place] = parts[place][:-1] + ("1" if parts[place][-1] != "1" else "2")
    with pytest.raises(ForgedToken):
        read_token(".".join(parts))


@pytest.mark.parametrize("text", ["", "x1", "x1." * 9, "\0", "x" * 100_000, "x1.qa.é.a.1.1.1.1.0.0"])
def test_what_is_no_token_is_refused_in_one_line(token, text):
    del token
    with pytest.raises(FeedbackRefused, match=r"of no exposure: .*; pass metadata\.exposure of the answer"):
        give_feedback(text, "thumbs", 1)


def test_a_stated_secret_signs_in_place_of_the_fleets(configure, settings_file, monkeypatch, client):
    monkeypatch.setenv("TOKEN_SECRET", "first")
    file = settings_file(with_experiment(secret_env="TOKEN_SECRET"), challenger=0.5)
    configure(file)
    exposure = Exposure("qa", "ab", "control", 1, 2, 3, TODAY)
    token = make_token(exposure, "a", b"")
    assert read_token(token).exposure == exposure
    assert not client.keys("*secret*")
    monkeypatch.setenv("TOKEN_SECRET", "second")
    configure(file)
    with pytest.raises(ForgedToken, match="its signature is not this fleet's"):
        read_token(token)


def test_a_redis_that_was_emptied_gets_the_secret_back_so_that_tokens_stay_valid(token, client, monkeypatch):
    held = token()
    client.flushall()
    monkeypatch.setattr("dspyq.store.fleet_secret._IS_FRESH_SECONDS", 0)
    assert read_token(held).nonce
    assert client.strlen(key("experiment-secret")) > 0
    process_secret().__init__("experiment-secret")  # as in another process, which finds it
    assert read_token(held).nonce


def test_a_secret_that_another_process_made_meanwhile_is_taken(token, client, monkeypatch):
    token()
    client.set(key("experiment-secret"), "of another process")
    monkeypatch.setattr("dspyq.store.fleet_secret._IS_FRESH_SECONDS", 0)
    held = token()
    process_secret().__init__("experiment-secret")
    assert read_token(held).nonce


def test_forged_tokens_cost_no_look_at_redis_whatever_programs_they_name(token, client):
    rest = token().removeprefix("x1.qa")
    before = client.info("stats")["total_commands_processed"]
    for number in range(200):
        with pytest.raises(ForgedToken):
            read_token(f"x1.program{number}{rest}")
    assert client.info("stats")["total_commands_processed"] - before < 10
