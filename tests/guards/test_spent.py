"""The count against a question that fails: the rule itself, and what follows from it under any schedule."""

from __future__ import annotations

import itertools
import logging
import time
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.call_records import CallRecord
from dspyq.guards.spent import Spent, count_refusals, count_spent, suspect_of

ATTEMPTS, PROBES, OUTAGE = 3, 3, 5
POLICY = BreakerPolicy(
    failure_threshold=5,
    success_threshold=1,
    reset_timeout_seconds=0.001,
    max_reset_timeout_seconds=0.002,
    probe_lease_seconds=30,
)


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    """A line for each transition takes longer than all else here."""
    monkeypatch.setattr(logging.getLogger("dspyq.breaker"), "disabled", True)


def failure(row, *, key="k", opens_breaker=False, is_in_outage=False, at=0):
    return CallRecord(
        "m",
        "server",
        0.1,
        key=key,
        spends_attempt=not opens_breaker,
        opens_breaker=opens_breaker,
        row=row,
        is_in_outage=is_in_outage,
        failed_at=at or row,
    )


def test_attempts_count_by_call_and_failed_probes_by_question():
    calls = [
        failure(1),
        failure(1, key="other"),
        failure(1, key="other", opens_breaker=True),
        failure(2, opens_breaker=True),
    ]
    assert count_spent(calls, "k", 2, ()) == Spent(attempts=1, probes=2)


def test_an_outage_costs_nothing_while_it_lasts_also_what_failed_before_it_was_known():
    calls = [failure(1), failure(1), failure(1, opens_breaker=True, is_in_outage=True)]
    assert count_spent(calls, "k", 1, ()) == Spent(0, 0)
    assert count_spent([failure(1), failure(1)], "k", 1, {1}) == Spent(0, 0)


def test_an_outage_that_others_have_survived_costs_one_attempt_in_all():
    calls = [failure(1), failure(1), failure(1, opens_breaker=True, is_in_outage=True), failure(2)]
    assert count_spent(calls, "k", 2, {1}) == Spent(attempts=2, probes=0)
    assert count_spent(calls, "k", 2, ()) == Spent(attempts=2, probes=0)  # long ago, and not named any more


def test_a_refusal_of_the_account_counts_once_others_were_answered_since():
    calls = [CallRecord("m", "auth", 0.1, key="k", account_row=row) for row in (0, 1, 1, 2, 3)]
    assert count_refusals(calls[:3], "k") == 0
    assert count_refusals(calls, "k") == 2
    assert count_refusals(calls, "other") == 0


def test_a_breaker_gets_the_latest_failure_of_a_question():
    assert suspect_of([], "q") == ("q", 0, 0)
    assert suspect_of([failure(3, at=7), failure(1)], "q") == ("q", 3, 7)


class World:
    """One model's breaker in a real Redis, and questions that any schedule asks of it."""

    def __init__(self, client, choose):
        self.breaker = FleetBreaker(client, uuid.uuid4().hex, POLICY)
        self.choose = choose
        self.calls: dict[str, list[CallRecord]] = {}
        self.ended: list[str] = []
        self.answered: list[str] = []
        self.is_down = False
        self.probers: list[str] = []

    def waiting(self):
        return [question for question in self.calls if question not in self.ended + self.answered]

    def state(self):
        return self.breaker.report("read", "", 0).state

    def step(self):
        """Ask one of the waiting questions; where the breaker is open, the next probe's."""
        state = self.state()
        while state.name == "open" and state.open_seconds:
            time.sleep(state.open_seconds)
            state = self.state()
        able = self.waiting()
        if state.name != "closed":  # who failed in this round leaves the probe to others, where there are any
            fresh = [one for one in able if suspect_of(self.calls[one], one).failed_at < state.round]
            able = fresh or able
        self.ask(self.choose(able), is_probe=state.name != "closed")

    def ask(self, question, *, is_probe=False):
        calls, suspect = self.calls[question], suspect_of(self.calls[question], question)
        call_id, epoch = uuid.uuid4().hex, self.state().epoch
        if is_probe:
            answer = self.breaker.report("admit", call_id, epoch, suspect)
            assert answer.is_admitted
            epoch = answer.state.epoch
            self.probers.append(question)
        if not self.is_down and "poison" not in question:
            self.breaker.report("succeeded", call_id, epoch)
            self.answered.append(question)
            return
        answer = self.breaker.report("failed", call_id, epoch, suspect)
        state, outages = answer.state, answer.state.outage_rows
        opens_breaker = is_probe or answer.is_transition
        calls.append(failure(answer.row, opens_breaker=opens_breaker, is_in_outage=answer.row in outages, at=state.at))
        if state.name != "closed" and state.row in outages:
            return
        spent = count_spent(calls, "k", state.row, outages)
        if spent.attempts >= ATTEMPTS or spent.probes >= PROBES:
            self.ended.append(question)


SCHEDULES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@SCHEDULES
@given(data=st.data(), poison=st.integers(1, OUTAGE - 1), good=st.integers(0, 8))
def test_fewer_bad_questions_than_an_outage_has_end_within_their_attempts_and_probes(redis_server, data, poison, good):
    world = World(redis_server.client(decode_responses=False), lambda able: data.draw(st.sampled_from(able)))
    world.calls = {f"poison-{n}": [] for n in range(poison)} | {f"good-{n}": [] for n in range(good)}
    for _ in range(poison * (ATTEMPTS + PROBES) + good):
        if world.waiting():
            world.step()
    assert sorted(world.answered + world.ended) == sorted(world.calls)
    assert len(world.answered) == good
    assert all(len(calls) <= ATTEMPTS + PROBES - 1 for calls in world.calls.values())
    assert world.state().openings <= poison * PROBES


@SCHEDULES
@given(data=st.data(), poison=st.integers(OUTAGE, 9))
def test_many_bad_questions_end_too_while_others_are_answered(redis_server, data, poison):
    world = World(redis_server.client(decode_responses=False), lambda able: data.draw(st.sampled_from(able)))
    world.calls = {f"poison-{n}": [] for n in range(poison)}
    names = (f"good-{n}" for n in itertools.count())
    steps = 0
    while len(world.ended) < poison:
        if not any("good" in question for question in world.waiting()):
            world.calls[next(names)] = []
        world.step()
        steps += 1
        assert steps < 200 * poison
    outages = world.state().outage_rows
    assert len(outages) <= poison // OUTAGE  # a question is evidence of one outage at most, once others have succeeded


def test_a_question_that_failed_before_others_were_answered_is_no_evidence_however_often_it_fails(redis_server):
    world = World(redis_server.client(decode_responses=False), None)
    world.calls = {name: [] for name in ("poison-old", "good", *(f"poison-{n}" for n in range(OUTAGE)))}
    for question in ("poison-old", "good", "poison-old", "poison-old", *(f"poison-{n}" for n in range(OUTAGE - 1))):
        world.ask(question)
    assert not world.state().outage_rows
    world.ask(f"poison-{OUTAGE - 1}")
    assert world.state().outage_rows


@SCHEDULES
@given(data=st.data(), questions=st.integers(OUTAGE, 9), probes=st.integers(1, 30))
def test_an_outage_ends_no_question_and_costs_none_an_attempt(redis_server, data, questions, probes):
    world = World(redis_server.client(decode_responses=False), lambda able: data.draw(st.sampled_from(able)))
    world.calls = {f"q-{n}": [] for n in range(questions)}
    world.is_down = True
    for n in range(OUTAGE):
        world.ask(f"q-{n}")
    for _ in range(probes):
        world.step()
    state = world.state()
    assert not world.ended
    assert {count_spent(calls, "k", state.row, state.outage_rows) for calls in world.calls.values()} == {Spent(0, 0)}
    world.is_down = False
    while world.waiting():
        world.step()
    assert sorted(world.answered) == sorted(world.calls)


@SCHEDULES
@given(data=st.data(), questions=st.integers(OUTAGE, 9))
def test_each_question_that_waits_probes_once_before_any_probes_again(redis_server, data, questions):
    world = World(redis_server.client(decode_responses=False), lambda able: data.draw(st.sampled_from(able)))
    world.calls = {f"q-{n}": [] for n in range(questions)}
    world.is_down = True
    for n in range(OUTAGE):
        world.ask(f"q-{n}")
    later = questions - OUTAGE
    for _ in range(later + 2 * questions):
        world.step()
    assert sorted(world.probers[:later]) == [f"q-{n}" for n in range(OUTAGE, questions)]
    for first in (later, later + questions):
        assert sorted(world.probers[first : first + questions]) == sorted(world.calls)
