"""Rows of a lane: how many rounds they may take, how many calls they need, and which of them money wakes first."""

from __future__ import annotations

import pytest

from dspyq.config.settings import load_settings
from dspyq.guards.call_records import EarlierRuns, JobRun
from dspyq.guards.ledger import Ledger
from dspyq.lane.deferral import is_endless
from dspyq.lane.depths import Depths
from dspyq.lane.journal import LaneJournal, LaneLook, LaneLost
from dspyq.lane.unpaid import UnpaidRows
from dspyq.store.keys import job_key, lane_key, lanes_key
from tests.support.configuration import write_settings

BATCH = "00ff00ff00ff00ff"


def look(rounds, strays=0):
    return LaneLook(False, False, False, rounds, strays, 0, False, None)


def ledger_of(replies, asked):
    """A run of which earlier ones were answered so many calls, and that has asked so many of them again."""
    ledger = Ledger(earlier=EarlierRuns(replies={f"call-{number}:1": b"reply" for number in range(replies)}))
    for number in range(asked):
        ledger.key_of(f"call-{number}")
    return ledger


def most_rounds(ledger):
    return next(rounds for rounds in range(100) if is_endless(ledger, look(rounds)))


def test_a_row_may_take_two_rounds_for_each_call_that_it_has_left_behind_and_some_more():
    assert most_rounds(ledger_of(0, 0)) == 7
    assert [most_rounds(ledger_of(calls, calls)) for calls in range(1, 20)] == [
        min(40, 2 * (calls + 1) + 5) for calls in range(1, 20)
    ]


def test_replies_that_a_program_does_not_ask_again_give_it_no_further_rounds():
    assert most_rounds(ledger_of(30, 1)) == 9
    assert is_endless(ledger_of(30, 0), look(3, strays=3))
    assert not is_endless(ledger_of(30, 1), look(3, strays=2))


@pytest.fixture
def programs(tmp_path):
    document = {
        "models": {"m": {"model": "openai/m"}},
        "programs": {
            "one": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}},
            "own": {"signature": "question -> answer", "class": "shop:Answer", "variants": {"a": {"model": "m"}}},
        },
    }
    return load_settings(write_settings(tmp_path / "dspyq.toml", document)).programs


@pytest.mark.parametrize(("program", "predictors", "calls"), [("one", 1, 1), ("own", 1, 2), ("own", 4, 4)])
def test_the_calls_of_a_row_are_reckoned_with_care_until_rows_have_shown_them(programs, predictors, program, calls):
    depths = Depths(programs, {(program, "a"): predictors})
    job = JobRun("t", "", program, "a", batch=BATCH)
    assert depths.calls_left(job, 0) == calls
    assert depths.calls_left(job, 5) == 1
    assert depths.calls_left(job, 0) == 6


def put(client, task, score):
    """A job that is delayed, as one that waits for money."""
    client.hset(job_key(task), mapping={"queue": "qa.control", "score": score, "message": "{}"})
    client.zadd("dspy:v1:delayed", {task: 9e9})


def test_money_wakes_rows_that_have_begun_first_and_then_by_their_turns(client):
    unpaid = UnpaidRows(client, "unserved", "me")
    for task, score, replies in (("late", 9, 0), ("early", 3, 0), ("begun", 7, 1), ("further", 8, 2)):
        put(client, task, score)
        unpaid.add(JobRun(task, "", "qa", "control", batch=BATCH), replies)
    with pytest.raises(LaneLost):
        unpaid.wake(1)
    assert LaneJournal(client, "unserved", "me").lease(60.0)
    woken = []
    while unpaid.wake(1):
        woken.append(set(client.zrange("dspy:v1:queue:qa.control", 0, -1)) - {task for one in woken for task in one})
    assert woken == [{b"further"}, {b"begun"}, {b"early"}, {b"late"}]
    assert not client.exists(lane_key("unserved", "unpaid"))


def test_rows_that_are_gone_wait_for_no_money_and_one_in_its_run_still_will(client):
    unpaid = UnpaidRows(client, "unserved", "me")
    for task in ("gone", "running"):
        put(client, task, 1)
        unpaid.add(JobRun(task, "", "qa", "control", batch=BATCH), 0)
        client.zrem("dspy:v1:delayed", task)
    client.delete(job_key("gone"))
    client.zadd("dspy:v1:leases", {"running": 9e9})
    unpaid.add(JobRun("never", "", "qa", "control", batch=BATCH), 0)
    assert LaneJournal(client, "unserved", "me").lease(60.0)
    assert unpaid.wake(10) == 0
    assert client.zrange(lane_key("unserved", "unpaid"), 0, -1) == [f"{BATCH}:running".encode()]
    assert unpaid.batches() == {BATCH}
    assert client.smembers(lanes_key()) == {b"unserved"}
