"""``dspyq feedback``: judgements of an answer, by its token."""

from __future__ import annotations

import json
import time

import pytest

from dspyq.experiments import administration
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.token import make_token
from tests.support.experiments import with_experiment

FEEDBACK = {"thumbs": {"low": 0, "high": 1}, "stars": {"low": 1, "high": 5, "replace": True}}


@pytest.fixture
def path(settings_file):
    return settings_file(with_experiment(feedback=FEEDBACK), challenger=0.5)


@pytest.fixture
def token(configure, path):
    state = administration.start(configure(path).programs["qa"])
    return make_token(Exposure("qa", state.epoch, "control", 1, 2, 3, int(time.time() // 86_400)), "a call", b"{}")


def test_judgements_are_counted_once_each(dspyq, path, token):
    given = dspyq("feedback", token, "thumbs=1", "stars=4", "--json", settings=path)
    assert json.loads(given.stdout) == {"thumbs": "new", "stars": "new"}
    again = dspyq("feedback", token, "thumbs=0", "stars=5", settings=path).stdout
    assert "thumbs: is not counted: an earlier one stays" in again
    assert "stars: replaces an earlier one" in again


def test_judgements_beside_one_that_is_not_counted_are_counted(dspyq, path, token):
    done = dspyq("feedback", token, "smiles=1", "thumbs=1", "stars=9", settings=path, ok=False)
    assert (done.returncode, done.stdout.split()) == (1, ["thumbs:", "counted"])
    (line,) = done.stderr.splitlines()
    assert "no feedback of that name" in line
    assert "stars is a number from 1 to 5" in line
    assert "thumbs: was given before" in dspyq("feedback", token, "thumbs=1", settings=path).stdout


@pytest.mark.parametrize(
    ("judgement", "line"),
    [
        ("thumbs", "a judgement is NAME=VALUE with a number, as in thumbs=1"),
        ("thumbs=up", "a judgement is NAME=VALUE with a number, as in thumbs=1"),
        ("thumbs=2", "thumbs is a number from 0 to 1"),
        ("smiles=1", "the experiment has no feedback of that name; it has thumbs, stars"),
    ],
)
def test_a_judgement_that_is_not_counted_gets_one_line(dspyq, path, token, judgement, line):
    refused = dspyq("feedback", token, judgement, settings=path, ok=False)
    assert refused.returncode == 1
    assert line in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
