"""A batch's share of a model's rate: its calls keep within it, and no other call waits behind them."""

from dataclasses import replace

import pytest

from dspyq.batch.account import BatchAccount
from dspyq.guards.rate_limit import RateLimiter, Share
from dspyq.store.scripts import run_together
from tests.support.rates import POLICY, about

BATCH = "00ff00ff00ff00ff"


@pytest.fixture
def client(redis_server):
    return redis_server.client(decode_responses=False)


@pytest.fixture
def limiter(client):
    return lambda **policy: RateLimiter(client, "m", replace(POLICY, **policy))


@pytest.fixture
def account(client):
    return BatchAccount(client, BATCH)


@pytest.fixture
def reserve(client):
    def reserve(limiter, tokens=0, batch=BATCH, joined=0):
        share = Share(batch, joined) if batch else None
        return run_together(client, [limiter.reserve(tokens, share)])[0]

    return reserve


def test_a_batch_waits_for_its_own_turn_and_no_other_call_waits_behind_it(limiter, reserve, account):
    account.open(rate_share=0.25)
    ten = limiter(requests_per_second=10)
    first, second = reserve(ten), reserve(ten)
    assert (first.is_reserved, first.wait_seconds) == (True, 0)
    assert (second.is_reserved, second.is_shared, second.wait_seconds) == (False, True, about(4 * 0.103))
    others = [reserve(ten, batch="") for _ in range(2)]
    assert [turn.wait_seconds for turn in others] == [about(0.103), about(0.206)]


def test_turns_too_late_for_a_thread_are_spread_and_reserve_nothing(limiter, reserve, account):
    account.open(rate_share=0.1)
    ten = limiter(requests_per_second=10)
    turns = [reserve(ten) for _ in range(4)]
    assert [turn.is_reserved or turn.is_shared for turn in turns] == [True, False, False, False]
    assert [turn.reason for turn in turns[1:]] == ["share"] * 3
    assert [turn.wait_seconds for turn in turns[1:]] == [about(1.03), about(2.06), about(3.09)]


def test_later_turns_are_spread_so_far_and_no_farther(limiter, reserve, account):
    account.open(rate_share=0.1)
    slow = limiter(requests_per_second=1)
    assert max(reserve(slow).wait_seconds for _ in range(9)) == about(20)


def test_a_call_that_others_wait_for_does_not_wait_for_the_batch_s_turn(limiter, reserve, account):
    account.open(rate_share=0.1)
    ten = limiter(requests_per_second=10)
    reserve(ten)
    joined = reserve(ten, joined=1)
    assert (joined.is_reserved, joined.wait_seconds) == (True, about(0.1))


def test_tokens_pass_at_the_share_s_pace_and_what_was_not_used_is_given_back(limiter, reserve, account, client):
    account.open(rate_share=0.5)
    paced = limiter(tokens_per_minute=6000)  # 100 a second, 50 of them the batch's
    reserve(paced, 100)
    run_together(client, [paced.correct(100, 60, BATCH)])
    waits_for_share = reserve(paced, 10)
    assert (waits_for_share.reason, waits_for_share.wait_seconds) == ("share", about(1.2))
    assert reserve(paced, 10, batch="").wait_seconds == about(0.6)


def test_a_share_of_a_model_without_limits_or_of_a_batch_without_a_share_is_nothing(limiter, reserve, account):
    account.open(rate_share=0.1)
    assert all(reserve(limiter()).is_reserved for _ in range(3))
    account.open()
    assert [reserve(limiter(requests_per_second=2)).wait_seconds for _ in range(2)] == [0, about(0.5)]
