"""The cost to others of a question that a 429 refuses every time: the rule, and the real gate under any schedule."""

from __future__ import annotations

import logging
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspyq.guards.call_records import CallRecord
from dspyq.guards.provider_gate import GatePolicy, ProviderGate, Refused
from dspyq.guards.spent import count_lone_refusals, refused_of
from dspyq.store.keys import key
from dspyq.store.scripts import run_together

PROBES, CROWD = 3, 4
POLICY = GatePolicy(max_retry_after_seconds=60, account_pause_seconds=1, max_account_pause_seconds=1)
SCHEDULES = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    """A line for each closing takes longer than all else here."""
    monkeypatch.setattr(logging.getLogger("dspyq.rate_limit"), "disabled", True)


def refusal(row, at):
    return CallRecord("m", "rate_limit", 0.1, key="k", refused_at=at, refused_row=row)


def test_a_refusal_counts_once_others_were_answered_since_and_only_while_few_others_are_refused():
    calls = [refusal(1, 1), refusal(1, 2), refusal(3, 3), refusal(4, 4)]
    assert count_lone_refusals(calls[:2], 0) == 0
    assert count_lone_refusals(calls, 0) == 2
    assert count_lone_refusals(calls, 2) == 1
    assert count_lone_refusals(calls, 4) == 0
    assert count_lone_refusals([CallRecord("m", "server", 0.1)], 0) == 0


def test_the_gate_is_given_the_latest_refusal_of_a_question():
    assert refused_of([CallRecord("m", "server", 0.1)], "q") == Refused("q")
    assert refused_of([refusal(3, 7), refusal(1, 1)], "q") == Refused("q", 3, 7)


class World:
    """One model's gate in a real Redis, and questions that any schedule asks of it."""

    def __init__(self, client):
        self._client = client
        name = uuid.uuid4().hex
        self._key = key(f"rate:{name}")
        self.gate = ProviderGate(client, name, POLICY)
        self.calls: dict[str, list[CallRecord]] = {}
        self.ended: list[str] = []
        self.closed_for_others = 0

    def reopen(self):
        """Let the time of the gate pass."""
        if self._client.exists(self._key):
            self._client.hset(self._key, "gate_until", 1)

    def answer(self):
        """Let some question be answered."""
        self.reopen()
        if (step := self.gate.succeeded()) is not None:
            run_together(self._client, [step])

    def refuse(self, question, seconds=None):
        self.reopen()
        calls = self.calls.setdefault(question, [])
        closing = self.gate.close("retry_after", seconds, refused_of(calls, question))
        calls.append(refusal(closing.refused_row, closing.refused_at))
        self.closed_for_others += bool(self.gate.read().closed_seconds)
        if count_lone_refusals(calls, closing.crowded_at) > PROBES:
            self.ended.append(question)


@pytest.fixture
def world(redis_server):
    with redis_server.client(decode_responses=False) as client:
        yield lambda: World(client)


def test_a_question_that_is_refused_again_after_others_were_answered_waits_alone(world):
    one = world()
    one.refuse("q")
    one.refuse("q")
    assert one.closed_for_others == 2
    one.answer()
    assert one.gate.close("retry_after", 7, refused_of(one.calls["q"], "q")).seconds == 7
    assert not one.gate.read().closed_seconds
    one.refuse("another")
    assert one.closed_for_others == 3


@pytest.mark.parametrize("others", [CROWD - 2, CROWD - 1])
def test_a_question_is_refused_with_others_once_four_different_ones_were_since(world, others):
    one = world()
    one.refuse("q")
    for number in range(others):
        one.refuse(f"other {number}")
    one.answer()
    before = one.closed_for_others
    one.refuse("q")
    assert one.closed_for_others - before == (others == CROWD - 1)


@SCHEDULES
@given(random=st.randoms(), poison=st.integers(1, CROWD - 1))
def test_few_questions_that_are_always_refused_end_while_others_are_answered(world, random, poison):
    one = world()
    waiting = [f"poison-{n}" for n in range(poison)]
    rounds = 0
    while waiting:
        for question in random.sample([*waiting, "good"], len(waiting) + 1):
            if question == "good":
                one.answer()
            else:
                one.refuse(question, random.choice([None, 7]))
        waiting = [question for question in waiting if question not in one.ended]
        rounds += 1
        assert rounds <= 2 * (PROBES + 2)
    rows = [len({call.refused_row for call in calls}) for calls in one.calls.values()]
    assert rows == [PROBES + 2] * poison
    refusals = sum(map(len, one.calls.values()))
    assert (
        one.closed_for_others == refusals - sum(rows) + poison
    )  # each row but the first began with one that was alone


@SCHEDULES
@given(random=st.randoms(), questions=st.integers(CROWD, 8), rounds=st.integers(1, 8))
def test_where_many_different_questions_are_refused_none_ends_to_the_last(world, random, questions, rounds):
    one = world()
    waiting = [f"q-{n}" for n in range(questions)]
    for number in range(rounds):
        for question in random.sample(waiting, len(waiting)):
            one.refuse(question)
        waiting.remove(random.choice(waiting))
        one.answer()
        waiting.append(f"later-{number}")
    while waiting:  # nobody else asks any more, and one after the other is answered
        for question in random.sample(waiting, len(waiting)):
            one.refuse(question)
        waiting.remove(random.choice(waiting))
        one.answer()
    assert not one.ended
