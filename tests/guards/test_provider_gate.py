"""The gate of a provider, for the whole fleet: two limiters here stand for two workers."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspyq.guards import provider_gate
from dspyq.guards.provider_gate import GatePolicy, GateState
from dspyq.store.scripts import run_together
from tests.support.rates import KEY, about

#: Pauses that no machine is so slow as to outlast.
LONG = GatePolicy(max_retry_after_seconds=200, account_pause_seconds=300, max_account_pause_seconds=1000)


def test_a_429_closes_the_gate_for_everyone_also_for_those_whose_turn_is_reserved(limiter, reserve, client):
    slow = {"requests_per_second": 0.02, "gate": LONG}
    one, other = limiter(longest_wait_seconds=10, **slow), limiter(longest_wait_seconds=400, **slow)
    reserve(other)
    assert reserve(other).is_reserved
    assert one.gate.close("retry_after", 150).seconds == pytest.approx(150)
    assert run_together(client, [other.gate.read_seconds()])[0] == about(150)
    assert other.gate.read() == GateState(about(150), "retry_after")
    refused = reserve(one)
    assert (refused.is_reserved, refused.wait_seconds, refused.reason) == (False, about(150), "retry_after")
    turns = [reserve(other) for _ in range(2)]
    assert [turn.wait_seconds for turn in turns] == [about(150), about(201.5)]


def test_the_gate_opens_by_itself(limiter, reserve, client):
    one = limiter()
    one.gate.close("retry_after", 0.2)
    reservation = reserve(one)
    time.sleep(reservation.wait_seconds)
    assert run_together(client, [one.gate.read_seconds()])[0] == 0
    assert reserve(one).wait_seconds == 0
    assert one.gate.read() == GateState(0, "")


def test_a_providers_wait_is_capped_and_a_shorter_one_does_not_open_the_gate(limiter):
    one = limiter(gate=LONG)
    assert one.gate.close("retry_after", 1e6).seconds == pytest.approx(200)
    assert one.gate.close("retry_after", 0).seconds == about(200)
    assert one.gate.close("account").seconds == pytest.approx(300)
    assert one.gate.close("retry_after", 1).seconds == about(300)
    assert one.gate.read().reason == "account"


def reopen(client):
    """Let the time of the gate pass."""
    client.hset(KEY, "gate_until", 1)


def test_a_closing_without_a_stated_time_doubles_until_a_call_succeeds(limiter, client, reserve):
    one, other = limiter(), limiter()
    assert one.gate.succeeded() is None
    lengths = []
    for _ in range(3):
        lengths.append(one.gate.close("retry_after").seconds)
        reopen(client)
    assert lengths == pytest.approx([1, 2, 3])
    reserve(other)
    run_together(client, [other.gate.succeeded()])
    reserve(other)
    assert other.gate.succeeded() is None
    assert one.gate.close("retry_after").seconds == pytest.approx(1)


def test_an_account_s_pause_doubles_by_itself(limiter, client):
    one = limiter()
    lengths = []
    for _ in range(3):
        lengths.append(one.gate.close("account").seconds)
        reopen(client)
    assert lengths == pytest.approx([60, 120, 200])
    assert one.gate.close("retry_after").seconds == pytest.approx(1)


def test_fifty_calls_in_flight_that_fail_together_close_it_once(limiter, caplog):
    one = limiter()
    with caplog.at_level(logging.WARNING, "dspyq.rate_limit"), ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda _: one.gate.close("account"), range(50)))
    assert one.gate.read().closed_seconds <= 60
    assert caplog.messages == ["gate_closed model=m closed_seconds=60 reason=account"]


def test_a_call_that_succeeds_while_the_gate_is_closed_was_sent_before_and_ends_nothing(limiter, client):
    one = limiter()
    one.gate.close("account")
    run_together(client, [one.gate.succeeded()])
    reopen(client)
    assert one.gate.close("account").seconds == pytest.approx(120)


def test_an_operator_opens_the_gate(limiter, reserve):
    one = limiter()
    assert not one.gate.reset()
    one.gate.close("account")
    assert one.gate.reset()
    assert reserve(one).wait_seconds == 0
    assert one.gate.close("account").seconds == pytest.approx(60)


def test_a_row_of_an_account_s_closings_ends_with_a_success_alone(limiter, reserve, client):
    one = limiter()
    row = one.gate.close("account").row
    one.gate.reset()
    assert one.gate.close("account").row == row
    reopen(client)
    reserve(one)
    run_together(client, [one.gate.succeeded()])
    assert one.gate.close("account").row > row


def test_a_call_of_a_model_without_a_limit_reserves_nothing_while_its_gate_was_seen_open_a_moment_ago(
    limiter, reserve, monkeypatch
):
    monkeypatch.setattr(provider_gate, "_FRESH_SECONDS", 3600.0)
    one, paced = limiter(), limiter(requests_per_second=1000)
    assert not one.lets_pass
    for each in (one, paced):
        reserve(each)
    assert one.lets_pass
    assert not paced.lets_pass
    monkeypatch.setattr(provider_gate, "_FRESH_SECONDS", 0.0)
    assert not one.lets_pass


@pytest.mark.parametrize("reason", ["retry_after", "account"])
def test_a_gate_that_closes_lets_no_call_pass_without_a_reservation_until_a_call_succeeds(
    limiter, reserve, client, monkeypatch, reason
):
    monkeypatch.setattr(provider_gate, "_FRESH_SECONDS", 3600.0)
    monkeypatch.setattr(provider_gate, "_RETRY_AFTER_SECONDS", 150.0)
    one, other = limiter(gate=LONG), limiter(gate=LONG)
    reserve(one)
    one.gate.close(reason)
    assert not one.lets_pass
    assert reserve(other).wait_seconds > 0
    assert not other.lets_pass
    reopen(client)
    for each in (one, other):
        assert reserve(each).wait_seconds == 0
        assert not each.lets_pass
    run_together(client, [one.gate.succeeded()])
    for each in (one, other):
        reserve(each)
        assert each.lets_pass
