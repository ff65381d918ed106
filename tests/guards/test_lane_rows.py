"""Money of a batch's rows in a lane: a row begins only if all its calls can be paid."""

from __future__ import annotations

import pytest
import redis

from dspyq.batch.account import BatchAccount
from dspyq.guards.batch_lanes import BatchLanes
from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget, LaneTerms
from tests.support.budgets import NANO, Calendar, call, do, settings

BATCH = "00ff00ff00ff00ff"


@pytest.fixture
def account(client):
    account = BatchAccount(client, BATCH)
    account.open(max_usd=100 / NANO, lane="provider")
    return account


@pytest.fixture
def begin(client):
    budget = Budget(client, settings(), Calendar())

    def begin(number, row_calls=2, bound=10):
        return do(client, budget.hold(call(number, batch=BATCH), bound, lane=LaneTerms(row_calls))).verdict

    return begin


def test_rows_begin_while_the_money_pays_for_all_their_calls_at_their_bounds(account, begin):
    del account
    assert [begin(number) for number in range(6)] == ["held"] * 5 + ["batch_busy"]
    assert begin(7, row_calls=1) == "held"  # of a row that has begun


def test_calls_of_rows_under_way_are_reckoned_at_the_mean_bill_once_there_is_one(client, account, begin):
    del account
    assert begin(0) == "held"
    do(client, Budget(client, settings(), Calendar()).settle(call(0, batch=BATCH), Bill(2)))
    # 98 are left; each row under way holds 10, and needs 2.5 more by the mean of 2.
    assert [begin(number) for number in range(1, 9)] == ["held"] * 7 + ["batch_busy"]


def test_a_row_that_the_whole_limit_cannot_pay_is_refused_before_its_first_call(account, begin):
    assert begin(1, row_calls=11) == "batch_limit"
    assert begin(2, row_calls=10) == "held"
    assert account.read().held_nano_usd == 10


def test_a_row_waits_for_the_days_money_only_while_other_calls_hold_some(client):
    BatchAccount(client, BATCH).open(lane="provider")
    budget = Budget(client, settings(15 / NANO), Calendar())
    assert do(client, budget.hold(call(1, batch=BATCH), 10, lane=LaneTerms(2))).is_held
    assert do(client, budget.hold(call(2, batch=BATCH), 1, lane=LaneTerms(6))).verdict == "busy"


def test_a_batchs_rest_lasts_until_its_limit_is_changed(client, account):
    assert BatchLanes(client).begin_rest(BATCH).rest_goes_live
    assert BatchLanes(client).of(BATCH).is_in_rest
    account.open(max_usd=100 / NANO, lane="provider")
    assert BatchLanes(client).of(BATCH).is_in_rest
    account.open(max_usd=200 / NANO, lane="provider")
    assert not BatchLanes(client).of(BATCH).is_in_rest


def test_a_lane_that_is_left_is_seen_at_once_by_a_call_that_would_enter_it(client, account):
    lanes = BatchLanes(client)
    assert lanes.of(BATCH).name == "provider"
    account.open(max_usd=100 / NANO, lane="provider,live")
    assert lanes.read(BATCH).is_left
    assert lanes.of(BATCH).is_left


def test_a_batch_without_a_limit_has_no_rest(client):
    BatchAccount(client, BATCH).open(lane="provider")
    assert not BatchLanes(client).begin_rest(BATCH).is_of_provider
    assert not BatchLanes(client).of(BATCH).is_in_rest
    assert not BatchLanes(client).begin_rest("ffffffffffffffff").is_of_provider
    assert not client.exists("dspy:v1:budget:batch:ffffffffffffffff")


def test_a_lane_that_was_never_read_is_no_live_one_while_redis_is_away():
    with pytest.raises(redis.ConnectionError):
        BatchLanes(redis.Redis(port=1)).of(BATCH)


def test_calls_in_lanes_hold_no_more_of_a_day_than_their_share_and_others_still_can(client):
    BatchAccount(client, BATCH).open(lane="provider")
    budget = Budget(client, settings(100 / NANO), Calendar())

    def hold(number, bound, share=0.5, **options):
        return do(client, budget.hold(call(number, **options), bound, lane=LaneTerms(day_share=share))).verdict

    assert hold(1, 60, batch=BATCH) == "held"  # one that is larger than the share, and alone
    do(client, budget.settle(call(1, batch=BATCH), Bill(20)))
    assert [hold(number, 10, batch=BATCH) for number in range(2, 7)] == ["held"] * 4 + ["busy"]
    assert hold(8, 40, share=None) == "held"
