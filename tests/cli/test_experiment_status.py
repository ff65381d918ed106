"""``dspyq experiment status``: the screen, and all its numbers as JSON."""

from __future__ import annotations

import json
import re

import pytest

from dspyq.experiments import administration
from dspyq.experiments.looks_store import read_points
from dspyq.experiments.status import status
from dspyq.store.keys import experiment_refused_key, experiment_sums_key
from tests.support.experiment_traffic import Traffic
from tests.support.experiments import with_experiment

CHANGES = {
    "primary": "call.failed",
    "minimum_effect": 0.01,
    "guards": [{"metric": "call.fallback", "margin": 0.01}],
    "ramp": [{"coverage": 0.5, "hours": 24}, {"coverage": 1.0}],
}


@pytest.fixture
def path(settings_file):
    return settings_file(with_experiment(**CHANGES), challenger=0.5)


@pytest.fixture
def run(path, configure):
    return administration.start(configure(path).programs["qa"])


@pytest.fixture
def screen(dspyq, path):
    return lambda *arguments: (
        dspyq("experiment", "status", "qa", *arguments, settings=path, env={"COLUMNS": "200"}).stdout
    )


def text(line):
    return line.replace("\u00a0", " ")


def test_the_screen_shows_figures_interval_evidence_verdict_and_what_is_needed(run, screen):
    Traffic(run, {"control": 0.05, "challenger": 0.04}).bring(8000)
    shown = screen()
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert lines["first"].startswith("first · qa · running, day 1 · coverage 50\u00a0% · 1:1 by unit · plan ")
    assert "ratio sound" in lines["units"]
    assert re.search(r"\(−\d\.\d\d … \+\d\.\d\d\) +[\d.]+ : 1 +primary, min 0\.01, G\* ", text(lines["call.failed"]))
    assert "guard ≤ +1.00 pp: ok, harm 1 : 1, few outcomes" in text(lines["call.fallback"])
    assert "challenger: going on: the primary metric's interval holds 0" in shown
    assert "of the planned information; the rest takes some" in shown
    assert "Next: coverage 100\u00a0% in" in shown
    assert "No worker has looked yet" in shown


def test_scores_that_answers_lack_are_shown_by_arm_and_reason(run, screen, client):
    base = experiment_sums_key("qa", run.epoch)
    client.hset(base + "unscored", mapping={"control failed grounded": 1200, "control dropped *": 3})
    shown = screen()
    assert "control: scores that its answers lack: 3 all dropped, 1,200 grounded failed" in shown
    assert json.loads(screen("--json"))[0]["look"]["unscored"] == {"control": {"* dropped": 3, "grounded failed": 1200}}


def test_without_calls_it_is_too_early(run, screen):
    del run
    assert "challenger: going on: too early: no rows" in screen()


def test_what_was_not_counted_is_shown_by_reason(run, screen, client):
    del run
    client.hset(experiment_refused_key("qa"), mapping={"late": 3, "range": 1})
    assert "Not counted: 3 late, 1 range" in screen()
    assert json.loads(screen("--json"))[0]["refusals"] == {"late": 3, "range": 1}


def test_the_json_has_every_number_of_the_look(run, screen):
    Traffic(run, {"control": 0.05, "challenger": 0.04}).bring(4000)
    (row,) = json.loads(screen("--json"))
    metric = row["look"]["challengers"]["challenger"]["metrics"]["call.failed"]
    assert metric["control_rows"] == row["look"]["calls"]["control"]
    assert metric["low"] < metric["value"] < metric["high"]
    assert row["next_step"]["coverage"] == 1.0
    assert row["needed"]["challenger"]["calls"] > 0


def test_an_ended_experiment_is_shown_with_what_is_served(run, screen):
    Traffic(run, {"control": 0.05, "challenger": 0.04}).bring(2000)
    administration.stop("qa", serve="challenger", reason="enough")
    shown = screen()
    assert "stopped; all units get challenger: enough" in shown
    assert "Next:" not in shown


def test_python_gets_the_same_standing_and_its_look_is_kept(run):
    Traffic(run, {"control": 0.05, "challenger": 0.04}).bring(2000)
    standing = status("qa")
    assert standing.look.challengers["challenger"].outcome == "going on"
    assert [point.number for point in read_points(run)] == [1]
    administration.stop("qa")
    assert status("qa").look.number == 2
    assert len(read_points(run)) == 1  # what has ended is only shown


def test_a_program_without_an_experiment_has_no_standing(configured):
    del configured
    assert status("qa") is None


def test_the_rate_is_that_of_the_last_day(run, monkeypatch):
    from dspyq.experiments import status as room

    Traffic(run, {"control": 0.05, "challenger": 0.04}).bring(4000)
    monkeypatch.setattr(room, "read_time", lambda: run.started_at + 3600)
    calls = sum(status("qa").look.calls.values())
    assert status("qa").calls_per_day == pytest.approx(24 * calls)
    monkeypatch.setattr(room, "read_time", lambda: run.started_at + 25 * 3600)
    assert status("qa").calls_per_day == 0  # none since an hour after the start


def test_a_user_of_redis_that_may_only_read_sees_the_status(path, configure, fresh_redis_server):
    server = fresh_redis_server()
    run = administration.start(configure(path, redis_url=server.url).programs["qa"])
    server.client().execute_command(
        "ACL", "SETUSER", "reader", "on", ">secret", "%R~*", "&*", "+@all",
    )  # fmt: skip
    configure(path, redis_url=server.url.replace("redis://", "redis://reader:secret@"))
    assert status("qa").look.number == 1
    assert read_points(run) == []
