"""A batch's share of a model's rate: its calls keep within it, and no other call waits behind them."""

from dataclasses import replace

import pytest

from dspyq.batch.account import BatchAccount
from dspyq.guards import rate_limit
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


@pytest.fixture
def waits_for_share(monkeypatch):
    """Set how long a batch's calls may wait: minutes, so that no turn comes before a slow machine asks for the next."""

    def wait_for(**seconds):
        waits = {f"share_{name}": each * 1_000_000 for name, each in seconds.items()}
        monkeypatch.setattr(rate_limit, "_WAITS_FOR_SHARE", waits)

    return wait_for


def test_a_batch_waits_for_its_own_turn_and_no_other_call_waits_behind_it(limiter, reserve, account, waits_for_share):
    waits_for_share(wait=1000, spread=1000)
    account.open(rate_share=0.25)
    slow = limiter(requests_per_second=0.1, longest_wait_seconds=200)
    first, second = reserve(slow), reserve(slow)
    assert (first.is_reserved, first.wait_seconds) == (True, 0)
    assert (second.is_reserved, second.is_shared, second.wait_seconds) == (False, True, about(4 * 10.3))
    others = [reserve(slow, batch="") for _ in range(2)]
    assert [turn.wait_seconds for turn in others] == [about(10.3), about(20.6)]


def test_turns_too_late_for_a_thread_are_spread_and_reserve_nothing(limiter, reserve, account, waits_for_share):
    waits_for_share(wait=1, spread=1000)
    account.open(rate_share=0.1)
    slow = limiter(requests_per_second=0.1)
    turns = [reserve(slow) for _ in range(4)]
    assert [turn.is_reserved or turn.is_shared for turn in turns] == [True, False, False, False]
    assert [turn.reason for turn in turns[1:]] == ["share"] * 3
    assert [turn.wait_seconds for turn in turns[1:]] == [about(103), about(206), about(309)]


def test_later_turns_are_spread_so_far_and_no_farther(limiter, reserve, account):
    account.open(rate_share=0.1)
    slow = limiter(requests_per_second=1)
    assert max(reserve(slow).wait_seconds for _ in range(9)) == about(20)


def test_a_call_that_others_wait_for_does_not_wait_for_the_batch_s_turn(limiter, reserve, account):
    account.open(rate_share=0.1)
    slow = limiter(requests_per_second=0.1, longest_wait_seconds=200)
    reserve(slow)
    joined = reserve(slow, joined=1)
    assert (joined.is_reserved, joined.wait_seconds) == (True, about(10.3))


def test_tokens_pass_at_the_share_s_pace_and_what_was_not_used_is_given_back(
    limiter, reserve, account, client, waits_for_share
):
    waits_for_share(wait=1, spread=1000)
    account.open(rate_share=0.5)
    paced = limiter(tokens_per_minute=60, longest_wait_seconds=200)  # 1 a second, half of it the batch's
    reserve(paced, 100)
    run_together(client, [paced.correct(100, 60, BATCH)])
    of_batch = reserve(paced, 10)
    assert (of_batch.reason, of_batch.wait_seconds) == ("share", about(120))
    assert reserve(paced, 10, batch="").wait_seconds == about(60)


def test_a_share_of_a_model_without_limits_or_of_a_batch_without_a_share_is_nothing(limiter, reserve, account):
    account.open(rate_share=0.1)
    assert all(reserve(limiter()).is_reserved for _ in range(3))
    account.open()
    assert [reserve(limiter(requests_per_second=2)).wait_seconds for _ in range(2)] == [0, about(0.515)]
