"""Looks: from sums to effects, guards, the sample ratio and a verdict, and how they are stored."""

import dataclasses
import math
import random
import zlib

import pytest

from dspyq.config.experiments import Experiment
from dspyq.experiments.look import Look, UnreadableLook
from dspyq.experiments.looks import Tracks, look_at
from dspyq.experiments.looks_store import MOST_LOOKS, Notes, read_looks, read_points, write_look
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.sums_reader import ArmReading
from dspyq.store.keys import experiment_look_key, experiment_looks_key
from tests.experiments.samples import arm, rates

BUCKETS = 1024
NOW = 1_000_000.0
TABLE = {
    "name": "first",
    "arms": ["control", "challenger"],
    "primary": "answer.grounded",
    "minimum_effect": 0.05,
    "at_least_days": 0,
    "scores": {"grounded": {"scorer": "quality:is_grounded", "low": 0, "high": 1}},
}


def plan(**changes):
    return Experiment.model_validate(TABLE | changes).model_dump(mode="json")


def state(**changes):
    stated = {
        "program": "qa", "name": "first", "version": 3, "status": "running", "arms": ("control", "challenger"),
        "coverage": 0.5, "serve": "control", "epoch": "e1", "plan_sha256": "", "started_at": NOW - 86_400,
        "step_at": NOW,
    }  # fmt: skip
    return ExperimentState(**stated | changes)


def amounts(mean, spread, rows=2000, seed=1):
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    values = [max(0.01, draw.gauss(mean, spread)) for _ in range(rows)]
    return arm([(row % 500, row % 500, value) for row, value in enumerate(values)], BUCKETS)


def share(yes, rows=4000):
    return rates(yes, rows, 500, BUCKETS)


def reading(units=2000, **metrics):
    """An arm: of metrics that are not given, 4,000 rows without an event."""
    found = {
        "call.failed": share(0), "answer.cost": amounts(1, 0.2), "answer.grounded": share(2000),
        "delivered.grounded": share(2000),
    }  # fmt: skip
    return ArmReading(units, 0, found | {name.replace("_", ".", 1): sums for name, sums in metrics.items()})


def scored(yes, rows=4000, **metrics):
    """An arm with so many good answers, by answer and by traffic."""
    return reading(answer_grounded=share(yes, rows), delivered_grounded=share(yes, rows), **metrics)


def look(table, *arms, before=None, **changes):
    names = ("control", "challenger", "third")[: len(arms)]
    readings = dict(zip(names, arms, strict=True))
    return look_at(state(arms=names, **changes), table, readings, before or Tracks(), NOW)


def outcome(looked, name="challenger"):
    return looked.look.challengers[name].outcome


def test_a_better_score_wins_and_a_worse_one_loses():
    better = scored(2800)
    found = look(plan(), reading(), better)
    assert outcome(found) == "wins"
    finding = found.look.challengers["challenger"].metrics["answer.grounded"]
    assert (finding.control, finding.challenger, finding.is_primary) == (0.5, 0.7, True)
    assert 0 < finding.low < finding.value < finding.high
    assert outcome(look(plan(), better, reading())) == "loses"


def test_of_cost_less_is_better_and_a_share_of_it_is_compared_on_the_scale_of_logarithms():
    table = plan(primary="answer.cost", minimum_effect="5 %")
    cheaper = reading(answer_cost=amounts(0.8, 0.2, seed=2))
    found = look(table, reading(), cheaper)
    finding = found.look.challengers["challenger"].metrics["answer.cost"]
    assert (outcome(found), finding.scale) == ("wins", "logarithm")
    assert finding.value == pytest.approx(math.log(0.8), abs=0.02)
    assert outcome(look(table, cheaper, reading())) == "loses"


def test_no_verdict_where_answers_and_traffic_disagree():
    split = reading(answer_grounded=share(1500), delivered_grounded=share(2200))
    assert outcome(look(plan(), reading(), split)) == "split"


def test_signs_that_differ_by_chance_are_no_split_while_nothing_is_found():
    chance = reading(answer_grounded=share(2010), delivered_grounded=share(1990))
    assert outcome(look(plan(minimum_effect=0.02), reading(), chance)) == "going on"


def test_too_few_units_are_no_finding():
    few = {"answer_grounded": rates(36, 40, 40, BUCKETS), "delivered_grounded": rates(36, 40, 40, BUCKETS)}
    found = look(plan(), reading(), reading(**few))
    challenger = found.look.challengers["challenger"]
    assert (challenger.outcome, challenger.because) == ("going on", "too early: few units")
    assert challenger.metrics["answer.grounded"].low is None


def test_a_guard_that_is_worse_by_more_than_its_margin_is_a_breach():
    table = plan(guards=[{"metric": "call.failed", "margin": 0.01}])
    found = look(table, reading(call_failed=share(20)), reading(call_failed=share(240)))
    challenger = found.look.challengers["challenger"]
    assert (challenger.outcome, challenger.breached) == ("breach", ["call.failed"])
    assert outcome(look(table, reading(call_failed=share(240)), reading(call_failed=share(20)))) != "breach"


def test_a_guarded_score_is_worse_where_it_falls():
    table = plan(primary="answer.cost", minimum_effect="5 %", guards=[{"metric": "answer.grounded", "margin": 0.02}])
    low, high = (reading(answer_grounded=share(yes)) for yes in (1600, 2400))
    assert outcome(look(table, high, low)) == "breach"
    assert outcome(look(table, low, high)) != "breach"


def test_more_guards_and_more_challengers_need_more_evidence_each():
    guards = [{"metric": "call.failed", "margin": 0.01}, {"metric": "answer.cost", "margin": "10 %"}]
    two = look(plan(guards=guards), reading(), reading()).look.challengers["challenger"]
    assert two.metrics["call.failed"].guard.log_limit == pytest.approx(math.log(200))
    table = plan(guards=guards, arms=["control", "challenger", "third"])
    three = look(table, reading(), reading(), reading()).look.challengers["third"]
    assert three.metrics["call.failed"].guard.log_limit == pytest.approx(math.log(400))


def test_several_challengers_are_corrected_for_their_number():
    table = plan(arms=["control", "challenger", "third"])
    found = look(table, reading(), scored(2800), scored(2002))
    alone = look(plan(), reading(), scored(2800))
    p_values = [each.look.challengers["challenger"].p_value for each in (alone, found)]
    assert p_values[1] == pytest.approx(2 * p_values[0])
    assert (outcome(found), outcome(found, "third")) == ("wins", "no difference that matters")


def test_arms_that_do_not_get_their_shares_are_broken():
    assert outcome(look(plan(), reading(units=5000), reading(units=6000))) == "broken"


def test_a_killed_arm_has_no_share_any_more():
    table = plan(arms=["control", "challenger", "third"])
    arms = reading(units=5000), reading(units=5000), reading(units=400)
    assert outcome(look(table, *arms)) == "broken"
    assert outcome(look(table, *arms, killed=("third",))) != "broken"


@pytest.mark.parametrize("lost", [{"units": 1999}, {"call_failed": share(10, 3999)}])
def test_counts_that_shrink_are_lost_and_no_later_look_is_believed(lost):
    first = look(plan(), reading(units=2000), scored(2800))
    second = look(plan(), reading(**lost), scored(2800), before=first.tracks)
    third = look(plan(), reading(units=9000), scored(2800), before=second.tracks)
    assert [outcome(each) for each in (first, second, third)] == ["wins", "broken", "broken"]
    assert third.look.challengers["challenger"].because == "counts were lost: an arm has fewer than at an earlier look"


def test_what_a_look_has_found_no_later_one_takes_back():
    first = look(plan(), reading(), scored(2800))
    second = look(plan(), reading(), scored(2002), before=first.tracks)
    one, two = (each.look.challengers["challenger"].metrics["answer.grounded"] for each in (first, second))
    assert (two.low, two.log_evidence) == (one.low, one.log_evidence)
    assert outcome(second) == "drifts"


def test_the_planned_information_is_frozen_at_the_first_look_that_counts():
    """4,000 + 4,000 calls so far: 80,000 planned calls bring ten times their information."""
    table = plan(planned_calls=80_000)
    first = look(table, reading(), scored(2002))
    challenger = first.look.challengers["challenger"]
    assert challenger.information == pytest.approx(10 * challenger.information_now)
    second = look(table, scored(4000, 8000), scored(4004, 8000), before=first.tracks)
    assert second.look.challengers["challenger"].information == challenger.information


def test_a_look_is_read_as_it_was_written():
    looked = look(plan(guards=[{"metric": "call.failed", "margin": 0.01}]), reading(), reading(call_failed=share(60)))
    read = Look.read(looked.look.dump())
    assert Look.read(read.dump()) == read
    assert read.challengers["challenger"].outcome == outcome(looked)
    assert read.challengers["challenger"].metrics["call.failed"].guard.margin == 0.01
    point = Look.read(looked.look.dump_point())
    assert set(point.challengers["challenger"].metrics) == {"answer.grounded", "delivered.grounded", "call.failed"}


@pytest.mark.parametrize(
    "stored",
    [b"", b"{}", b"[]", b"x\x9c", zlib.compress(b"[]"), b'{"challengers": 3}', b'{"challengers": {}, "at": 1}'],
)
def test_a_look_of_another_form_is_refused(stored):
    with pytest.raises(UnreadableLook):
        Look.read(stored)


@pytest.fixture
def first():
    return look(plan(guards=[{"metric": "call.failed", "margin": 0.01}]), reading(), reading())


@pytest.mark.usefixtures("configured")
def test_looks_and_notes_are_stored_and_continued(first):
    notes = Notes(frozenset({"broken"}), {"challenger": 5.0}, 7)
    assert write_look(state(), first, notes)
    stored = read_looks(state())
    assert (stored.tracks, stored.notes) == (first.tracks, notes)
    assert stored.latest == Look.read(first.look.dump())


@pytest.mark.usefixtures("configured")
def test_of_two_looks_with_one_number_the_first_stays(first):
    other = first._replace(look=dataclasses.replace(first.look, at=NOW + 1))
    assert [write_look(state(), each, Notes()) for each in (first, other, first)] == [True, False, False]
    assert [each.at for each in read_points(state())] == [NOW]


@pytest.mark.usefixtures("configured")
def test_another_start_of_an_experiment_begins_without_looks(first):
    write_look(state(), first, Notes())
    other = state(epoch="e2")
    assert read_looks(other) == (None, Tracks(), Notes())
    assert write_look(other, first, Notes())
    assert len(read_points(other)) == 1
    assert read_points(state()) == []


def test_looks_over_time_are_thinned_out(first, configured, client):
    del configured
    looked = first
    for number in range(1, MOST_LOOKS + 2):
        looked = first._replace(look=dataclasses.replace(first.look, number=number, at=NOW + number))
        assert write_look(state(), looked, Notes())
    points = [each.number for each in read_points(state())]
    assert points == list(range(1, MOST_LOOKS + 2, 2))
    assert all(client.ttl(each) > 0 for each in (experiment_look_key("qa"), experiment_looks_key("qa")))


def test_looks_that_cannot_be_read_begin_anew_under_the_next_number(first, configured, client):
    del configured
    write_look(state(), first, Notes())
    client.hset(experiment_look_key("qa"), "tracks", b"{}")
    stored = read_looks(state())
    assert (stored.latest, stored.tracks.number) == (None, 1)
