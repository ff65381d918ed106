"""Scores in an experiment over a real fleet: each computed answer's once, whatever becomes of its worker."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from dspyq.cache.claim import Kept, Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.experiments import administration
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.placement import place
from dspyq.experiments.scores import ExperimentScores, dump_unscored
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.store.keys import key
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until

HOOKS = "tests.support.user_scorers"
WAITING = "experiment-unscored:qa"
TODAY = 20_000


def with_scores(scorers=("is_brief",), low=0, high=1):
    scores = {name: {"scorer": f"{HOOKS}:{name}", "low": low, "high": high} for name in scorers}
    changes = with_experiment(scores=scores)
    changes["programs"]["qa"]["scorers"] = [f"{HOOKS}:{name}" for name in scorers]
    return changes


@pytest.fixture
def start(settings_file, configure):
    """Start an experiment whose answers are scored: ``start(changes)``; its file comes back."""

    def begin(changes):
        path = settings_file(changes, challenger=0.5)
        administration.start(configure(path).programs["qa"])
        return path

    return begin


def ask(question, unit):
    from dspyq import predict

    return predict.apply_async(kwargs={"question": question}, unit=unit)


def unit_of(arm):
    state = administration.read_state("qa")
    return next(f"user {n}" for n in range(99) if place(state.placing, f"user {n}").variant == arm)


def reading(arm):
    process_tally().flush()
    return read_sums(administration.read_state("qa"), administration.read_plan("qa").table, today=TODAY)[arm]


def summed(arm, metric):
    sums = reading(arm).metrics[metric].by_unit
    return sum(sums.denominators), sum(sums.numerators)


def test_each_computed_answer_is_scored_once_and_each_call_delivers_its_score(start, worker, client):
    worker(start(with_scores()))
    unit = unit_of("challenger")
    for question in ("a", "b", "a question that makes for a long answer", "a", "a"):
        ask(question, unit).get(timeout=20)
    wait_until(lambda: summed("challenger", "answer.is_brief") == (3, 2), 60, "three scores")
    wait_until(lambda: summed("challenger", "delivered.is_brief") == (5, 4), 60, "those of five calls")
    assert summed("control", "answer.is_brief") == (0, 0)
    assert client.zcard(key(WAITING)) == 0
    assert client.hlen(key(WAITING) + ":content") == 0


def test_scorers_that_fail_or_leave_their_range_are_counted_by_arm_and_logged_without_content(start, worker):
    running = worker(start(with_scores(("is_brief", "fails"), low=0, high=0.5)))
    unit = unit_of("challenger")
    for number in range(3):
        ask(f"secretive {number}", unit).get(timeout=20)

    def found():
        return {each: count for each, count in reading("challenger").unscored.items() if count}

    wait_until(lambda: sum(found().values()) >= 6, 60, "all scores to be missed")
    assert found() == {("is_brief", "out_of_range"): 3, ("fails", "failed"): 3}
    assert reading("control").unscored == {}
    assert summed("challenger", "answer.is_brief") == (0, 0)
    running.wait_for_line("score_out_of_range")
    told = [line for line in running.logs().splitlines() if "score_out_of_range" in line]
    assert len(told) == 1
    assert "programs.qa.experiment.scores.is_brief" in told[0]
    assert "secretive" not in "".join(running.logs().splitlines())


def test_an_answer_whose_worker_was_killed_is_scored_by_another(start, worker, client):
    path = start(with_scores(("halts",)))
    first = worker(path)
    unit = unit_of("challenger")
    ask("halt", unit).get(timeout=20)
    assert client.zcard(key(WAITING)) == 1
    first.kill()
    client.zadd(key(WAITING), dict.fromkeys(client.zrange(key(WAITING), 0, -1), 0))  # the minute is over
    worker(path, env={"HALTS": "no"})
    wait_until(lambda: summed("challenger", "answer.halts") == (1, 1), 20, "the other worker's score")
    assert client.zcard(key(WAITING)) == 0


def stored(client, task_id, content=b"[{}, {}]"):
    """Store an answer that one unit waits for, as a worker does; return whether it waits for its scores."""
    state = administration.read_state("qa")
    exposure = Exposure("qa", state.epoch, "challenger", 5, 9, 77, TODAY).stated()
    client.hset(key(f"experiment-open:{task_id}"), "caller", f"{exposure} {time.time() * 1000:.0f} 0")
    request = SimpleNamespace(input_hash=task_id, queue="qa.challenger")
    answer = Stored(b"{}", serve_seconds=60, keep_seconds=60, counts={}, time_ms=1, tokens=1, unscored=content)
    return Kept.UNSCORED in process_claims().answer(request, Run(task_id), answer)


@pytest.fixture
def counted(start, client):
    start(with_scores())
    return ExperimentScores(client)


def test_an_answer_is_given_to_one_worker_at_a_time_and_dropped_when_it_ends_three(counted, client):
    assert stored(client, "deadly", dump_unscored({"question": "q"}, {"answer": "a"}))
    assert counted.take("qa", 10) == []  # the worker that computed it has a minute
    for _ in range(3):
        client.zadd(key(WAITING), {"deadly": 0})
        (taken,) = counted.take("qa", 10)
        assert taken == ("deadly", "challenger", {"question": "q"}, {"answer": "a"})
        assert counted.take("qa", 10) == []
    client.zadd(key(WAITING), {"deadly": 0})
    assert counted.take("qa", 10) == []
    assert reading("challenger").unscored == {("*", "lost"): 1}
    assert not client.exists(key(WAITING), key(WAITING) + ":content")


def test_scores_that_are_added_again_change_nothing(counted, client):
    stored(client, "twice")
    for _ in range(2):
        counted.add("qa", "twice", {"is_brief": 0.25, "other": "failed"})
    assert summed("challenger", "answer.is_brief") == (1, 0.25)
    assert reading("challenger").unscored == {("other", "failed"): 1}


@pytest.mark.usefixtures("counted")
def test_answers_beyond_a_thousand_that_wait_are_dropped_and_counted(client):
    client.zadd(key(WAITING), {str(number): 2e12 for number in range(999)})
    assert stored(client, "the last")
    assert not stored(client, "one more")
    assert reading("challenger").unscored == {("*", "dropped"): 1}
    assert client.ttl(key(WAITING)) > 0


def test_scores_that_come_after_the_answer_was_forgotten_are_counted_as_late(counted, client):
    stored(client, "forgotten")
    client.delete(key("experiment-answer:forgotten"))
    counted.add("qa", "forgotten", {"is_brief": 1.0})
    assert reading("challenger").unscored == {("*", "late"): 1}


def test_content_that_cannot_be_read_is_taken_without_inputs(counted, client):
    stored(client, "foreign", b"no JSON")
    client.zadd(key(WAITING), {"foreign": 0})
    assert counted.take("qa", 10)[0].inputs is None
