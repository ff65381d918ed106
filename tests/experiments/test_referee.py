"""The referee: ramps, rolls back, pauses and promotes, each once, by a clock of the test."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from dspyq.experiments import administration
from dspyq.experiments.looks_store import read_looks, read_points
from dspyq.experiments.referee import Referee, Refusals, no_refusals, read_active
from dspyq.store.keys import experiment_look_key, killed_arms_key
from tests.support.experiment_traffic import Traffic
from tests.support.experiments import with_experiment

HOUR = 3600.0
RAMP = [{"coverage": 0.2, "hours": 1}, {"coverage": 0.5, "hours": 2}, {"coverage": 1.0}]
FAILING = {"control": 0.004, "challenger": 0.034}
SOUND = dict.fromkeys(FAILING, 0.004)


@pytest.fixture
def begin(configure, settings_file):
    """Start an experiment; return its state, its time and a referee with that time."""

    def start(refusals=no_refusals, variants=None, **changes):
        guards = [{"metric": "call.failed", "margin": 0.01}]
        stated = with_experiment(**{"ramp": RAMP, "guards": guards, "at_least_days": 0} | changes)
        stated["programs"]["qa"]["variants"] = variants or {}
        program = configure(settings_file(stated, challenger=0.5)).programs["qa"]
        state = administration.start(program)
        clock = SimpleNamespace(now=state.started_at)
        referee = Referee("a worker", refusals, lambda: clock.now)
        return SimpleNamespace(state=state, clock=clock, referee=referee, program=program)

    return start


def state():
    return administration.read_state("qa")


def look(run, after=0.0):
    run.clock.now += after
    return run.referee.attend_to(state())


def whats():
    return [entry.what for entry in administration.read_log("qa")]


def test_coverage_follows_the_ramp_when_each_step_is_due(begin):
    run = begin()
    for after, coverage in ((0.5, 0.2), (0.5, 0.5), (1.9, 0.5), (0.2, 1.0), (50, 1.0)):
        look(run, after * HOUR)
        assert state().coverage == coverage
    entries = administration.read_log("qa")
    assert [(entry.what, entry.detail, entry.who) for entry in entries[1:]] == [
        ("ramp", "0.5", "a worker"), ("ramp", "1", "a worker"),
    ]  # fmt: skip


def test_a_held_ramp_stays_until_it_is_followed_again(begin):
    run = begin()
    administration.ramp("qa", 0.3)
    look(run, 5 * HOUR)
    assert state().coverage == 0.3
    administration.hold("qa", held=False)
    look(run)
    assert state().coverage == 0.5


def test_a_coverage_that_an_operator_chose_is_never_reduced(begin):
    run = begin()
    administration.ramp("qa", 0.8)
    administration.hold("qa", held=False)
    look(run, HOUR)
    assert (state().coverage, state().step) == (0.8, 1)


def test_a_challenger_that_fails_more_is_rolled_back(begin, client, caplog):
    """10 calls a second at a coverage of 20 %, looked at every minute; benchmarks/experiments states the median."""
    run = begin()
    traffic = Traffic(run.state, FAILING)
    with caplog.at_level(logging.INFO, "dspyq.experiments"):
        for _ in range(90):
            traffic.bring(600)
            look(run, 60)
            if state().status == "stopped":
                break
    found = state()
    assert (found.status, found.serve, found.killed) == ("stopped", "control", ("challenger",))
    assert client.smembers(killed_arms_key()) == {b"qa.challenger"}
    assert run.clock.now - run.state.started_at < 90 * 60
    assert whats()[-1] == "roll back"
    assert "call.failed of challenger is worse by more than 0.01" in administration.read_log("qa")[-1].reason
    events = [str(record.msg) for record in caplog.records]
    assert [event.split()[0] for event in events][-2:] == ["experiment_breach", "experiment_rolled_back"]
    assert "arm=challenger metric=call.failed margin=0.01 evidence=" in events[-2]
    assert not read_active(["qa"])


def test_a_sound_challenger_is_not_rolled_back(begin):
    run = begin()
    traffic = Traffic(run.state, SOUND)
    for _ in range(30):
        traffic.bring(600)
        look(run, 60)
    assert state().status == "running"
    assert len(read_points(state())) == 30


@pytest.mark.parametrize(("on_breach", "status"), [("pause", "paused"), ("tell", "running")])
def test_a_breach_is_acted_on_as_the_plan_states_and_once(begin, caplog, on_breach, status):
    run = begin(on_breach=on_breach)
    Traffic(run.state, {"control": 0.0, "challenger": 0.5}).bring(4000)
    with caplog.at_level(logging.INFO, "dspyq.experiments"):
        look(run, 10)
        look(run, 10)
    assert state().status == status
    assert sum(str(record.msg).startswith("experiment_breach") for record in caplog.records) == 1
    if on_breach == "pause":
        administration.resume("qa", reason="known: the provider's fault")
        look(run, 10)
        assert state().status == "running"  # an operator is not overruled
    look(run, 5 * HOUR)
    assert state().coverage == 0.2  # no ramp beside a breach


def test_of_several_challengers_the_one_that_breaches_is_killed_and_the_others_go_on(begin, client, caplog):
    second = {"model": "challenger", "weight": 0.0}
    run = begin(variants={"second": second}, arms=["control", "challenger", "second"])
    Traffic(run.state, {"control": 0.0, "challenger": 0.5, "second": 0.0}).bring(6000)
    with caplog.at_level(logging.INFO, "dspyq.experiments"):
        look(run, 10)
        look(run, 10)
    found = state()
    assert (found.status, found.killed) == ("running", ("challenger",))
    assert client.smembers(killed_arms_key()) == {b"qa.challenger"}
    assert whats() == ["start", "kill"]
    assert administration.read_log("qa")[-1].detail == "challenger"
    assert [str(record.msg).split()[0] for record in caplog.records] == ["experiment_breach", "experiment_arm_killed"]
    look(run, 2 * HOUR)
    assert state().coverage == 0.5  # its ramp goes on
    Traffic(found, {"control": 0.0, "challenger": 0.0, "second": 0.5}, seed=2).bring(6000)
    look(run, 10)
    found = state()
    assert (found.status, found.killed) == ("stopped", ("challenger", "second"))
    assert whats()[-1] == "roll back"


def test_arms_that_do_not_get_their_shares_pause_the_experiment(begin, client):
    run = begin()
    look(run)
    base = f"dspy:v1:experiment-sums:qa:{run.state.epoch}:units"
    client.hset(base, mapping={"control": 5000, "challenger": 6000})
    look(run, 10)
    assert (state().status, state().acted) == ("paused", ("broken",))
    administration.resume("qa")
    look(run, 10)
    assert state().status == "running"


def test_counts_that_were_lost_pause_the_experiment_and_roll_nothing_back(begin, client, caplog):
    run = begin()
    Traffic(run.state, SOUND).bring(2000)
    look(run)
    base = f"dspy:v1:experiment-sums:qa:{run.state.epoch}:"
    client.delete(base + "control:calls:u", base + "control:calls:q")
    Traffic(run.state, {"control": 0.0, "challenger": 0.9}).bring(1000)
    with caplog.at_level(logging.INFO, "dspyq.experiments"):
        look(run, 10)
        look(run, 10)
    assert (state().status, state().acted) == ("paused", ("lost",))
    assert state().reason == "counts were lost: an arm has fewer than at an earlier look"
    assert sum(str(record.msg).startswith("experiment_broken") for record in caplog.records) == 1
    administration.resume("qa")
    look(run, 10)
    assert state().status == "running"


def test_an_arm_whose_calls_are_refused_for_long_pauses_the_experiment(begin):
    refused = {"challenger": "the circuit breaker of fake is not closed"}
    run = begin(lambda _: Refusals(for_a_while=refused), pause_after_seconds=60)
    look(run)
    look(run, 50)
    assert state().status == "running"
    look(run, 10)
    assert state().status == "paused"
    assert administration.read_log("qa")[-1].reason == (
        "challenger is no arm: the circuit breaker of fake is not closed for 60 s"
    )


def test_an_arm_that_recovers_meanwhile_goes_on(begin):
    refused = {"challenger": "the circuit breaker of fake is not closed"}
    now_refused = dict(refused)
    run = begin(lambda _: Refusals(for_a_while=dict(now_refused)), pause_after_seconds=60)
    look(run)
    now_refused.clear()
    look(run, 50)
    now_refused.update(refused)
    look(run, 50)
    assert state().status == "running"


def test_an_arm_without_money_pauses_the_experiment_at_once(begin):
    run = begin(lambda _: Refusals(until_later={"control": "its daily budget is used up"}))
    look(run)
    assert (state().status, state().reason) == ("paused", "control is no arm: its daily budget is used up")


def test_a_win_is_reported_once_or_promoted(begin, caplog):
    for on_win, status in (("tell", "running"), ("promote", "stopped")):
        caplog.clear()
        run = begin(name=f"to {on_win}".replace(" ", "-"), on_win=on_win, primary="call.failed", minimum_effect=0.05,
                    guards=[])  # fmt: skip
        Traffic(run.state, {"control": 0.5, "challenger": 0.1}).bring(20_000)
        with caplog.at_level(logging.INFO, "dspyq.experiments"):
            look(run, 10)
            if status == "running":
                look(run, 10)
        assert sum(str(record.msg).startswith("experiment_wins") for record in caplog.records) == 1
        assert state().status == status
        if status == "running":
            administration.stop("qa")
    assert (state().serve, whats()[-1]) == ("challenger", "promote")


def test_of_two_referees_at_the_same_time_one_reports_and_one_acts(begin, caplog):
    run = begin()
    Traffic(run.state, {"control": 0.0, "challenger": 0.5}).bring(4000)
    both = threading.Barrier(2)

    def together(_):
        both.wait(timeout=60)
        return Refusals()

    referees = [Referee(name, together, lambda: run.clock.now) for name in ("one", "two")]
    seen = state()
    threads = [threading.Thread(target=referee.attend_to, args=(seen,)) for referee in referees]
    with caplog.at_level(logging.INFO, "dspyq.experiments"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert whats() == ["start", "roll back"]
    events = [str(record.msg).split()[0] for record in caplog.records]
    assert sorted(events) == ["experiment_breach", "experiment_rolled_back"]
    assert read_looks(state()).tracks.number == 1


def test_a_referee_that_read_an_older_state_changes_nothing(begin):
    run = begin()
    old = state()
    administration.pause("qa")
    run.clock.now += 2 * HOUR
    run.referee.attend_to(old)
    assert (state().status, state().coverage) == ("paused", 0.2)


def test_a_killed_arm_is_listed_again_where_that_key_was_lost(begin, client):
    run = begin()
    administration.kill("qa", "challenger")
    client.delete(killed_arms_key())
    look(run)
    assert client.smembers(killed_arms_key()) == {b"qa.challenger"}


def test_looks_of_an_experiment_have_an_end(begin, client):
    look(begin())
    assert client.ttl(experiment_look_key("qa")) > 0


@pytest.mark.parametrize("unit", ["required", "inputs"])
def test_every_metric_of_an_experiment_has_a_finding(configure, settings_file, unit):
    stated = with_experiment(
        unit=unit,
        primary="answer.grounded",
        minimum_effect=0.02,
        scores={"grounded": {"scorer": "quality:is_grounded", "low": 0, "high": 1}},
        feedback={"stars": {"low": 1, "high": 5}},
        guards=[{"metric": "response.stars", "margin": "10 %"}, {"metric": "answer.slow", "margin": 0.1, "seconds": 2}],
    )
    stated["programs"]["qa"]["scorers"] = ["quality:is_grounded"]
    program = configure(settings_file(stated, challenger=0.5)).programs["qa"]
    run = administration.start(program)
    Traffic(run, SOUND).bring(500)
    found = Referee("a worker", clock=lambda: run.started_at + 60).attend_to(run)
    metrics = found.challengers["challenger"].metrics
    assert set(metrics) == set(program.experiment.metrics)
    assert metrics["call.failed"].control_rows == found.calls["control"] > 100
    assert metrics["answer.grounded"].too_early == "no rows"


def test_an_ended_experiment_is_looked_at_each_hour_until_its_judgements_are_complete(begin):
    run = begin(feedback={"thumbs": {"low": 0, "high": 1, "window_days": 2}})
    look(run, 10)
    administration.stop("qa")
    assert [each.program for each in read_active(["qa"])] == ["qa"]
    numbers = []
    for hours in (0.5, 1, 0.5, 0.6, 24, 24, 24, 24, 24):
        found = look(run, hours * HOUR)
        numbers.append(found and found.number)
    assert numbers[:7] == [None, 2, None, 3, 4, 5, 6]
    assert numbers[-1] is None  # the days of the window are over
    assert read_looks(state()).notes.folded_day >= int(run.state.started_at // 86_400)
    assert whats() == ["start", "stop"]


def test_an_ended_experiment_without_feedback_is_looked_at_no_more(begin):
    run = begin()
    look(run, 10)
    administration.stop("qa")
    assert read_active(["qa"]) == []
    assert look(run, 2 * HOUR) is None
