"""``dspyq experiment``: what it changes, shows and refuses."""

from __future__ import annotations

import json

import pytest

from tests.support.experiments import with_experiment


@pytest.fixture
def experiment(dspyq, settings_file):
    """Run ``dspyq experiment`` with an experiment of two arms in the file."""
    path = settings_file(with_experiment(), challenger=0.5)
    return lambda *arguments, ok=True: dspyq("experiment", *arguments, settings=path, ok=ok)


def test_an_experiment_is_started_ramped_killed_stopped_and_logged(experiment):
    assert "not started" in experiment("status").stdout
    assert "coverage 100.00%" in experiment("start", "--reason", "a try").stdout
    assert json.loads(experiment("ramp", "qa", "0.25", "--json").stdout)["coverage"] == 0.25
    assert json.loads(experiment("kill", "qa", "challenger", "--json").stdout)["killed"] == ["challenger"]
    (row,) = json.loads(experiment("status", "qa", "--json").stdout)
    assert (row["status"], row["coverage"], row["file"]) == ("running", 0.25, "as planned")
    assert "stopped" in experiment("stop", "qa").stdout
    assert [entry["what"] for entry in json.loads(experiment("log", "--json").stdout)] == [
        "start", "ramp", "kill", "stop",
    ]  # fmt: skip
    assert "a try" in experiment("log").stdout


def test_a_kill_forgets_the_cached_answers_of_its_arm_alone_where_asked(experiment, worker, configure, settings_file):
    from dspyq import predict
    from dspyq.cache.admin import cache_statistics

    path = settings_file(with_experiment(), challenger=0.5)
    configure(path)
    worker(path)
    for variant in ("control", "challenger"):
        predict.apply_async(kwargs={"question": "who?"}, variant=variant).get(timeout=30)
    experiment("start")
    assert "forgotten answers: 1" in experiment("kill", "qa", "challenger", "--forget").stdout
    assert cache_statistics().entries == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["pause"], "qa has no experiment; start one: dspyq experiment start qa"),
        (["ramp", "other", "0.5"], "there is no program 'other'; there is qa"),
        (["ramp", "qa"], "give a COVERAGE, --hold or --follow"),
        (["stop", "--serve", "control", "--by-weight"], "give --serve or --by-weight, not both"),
    ],
)
def test_a_change_that_cannot_be_made_gets_one_line(experiment, arguments, line):
    failed = experiment(*arguments, ok=False)
    assert failed.returncode != 0
    assert line in failed.stderr


def test_the_status_shows_that_the_file_differs_from_the_plan(dspyq, settings_file):
    dspyq("experiment", "start", settings=settings_file(with_experiment(), challenger=0.5))
    edited = settings_file(with_experiment(minimum_effect="9 %"), challenger=0.5)
    (row,) = json.loads(dspyq("experiment", "status", "--json", settings=edited).stdout)
    assert row["file"] == "differs from the plan"
