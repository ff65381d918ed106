"""Calls that do not end in time: their holds run out and are charged, and what comes late corrects the charge."""

import time

from dspyq.guards.billing import Bill
from tests.support.budgets import NANO, PREFIX, account, books, call, do, expire, statistics

LIMIT = 100


def test_a_hold_whose_lease_ran_out_is_charged_its_bound_once(client, make, redis_server, caplog):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 60, lease_seconds=0.001))
    time.sleep(0.01)
    assert budget.sweep() == 1
    assert budget.sweep() == 0
    assert account(redis_server) == (60, 0)
    assert books(redis_server) == {"calls": 1, "unknown_calls": 1, "unknown_nano_usd": 60}
    assert statistics(redis_server) == {"expired_holds": 1}
    assert "calls_charged_at_bound calls=1" in caplog.text


def test_a_hold_is_leased_for_as_long_as_its_call_may_take(client, make, redis_server):
    budget = make()
    do(client, budget.hold(call(), 60))
    seconds, _ = client.time()
    lease = redis_server.client().zscore(f"{PREFIX}budget:leases", call().id) - seconds
    assert lease > 60 + 2  # the model's timeout and the longest wait for its rate limit
    assert budget.sweep() == 0


def test_a_late_settlement_replaces_what_was_charged_as_unknown_once(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 60))
    expire(client, budget, call())
    settlement = do(client, budget.settle(call(), Bill(25, 2, 3)))
    assert (settlement.found, settlement.charged_nano_usd) == ("expired", 25)
    assert do(client, budget.settle(call(), Bill(25, 2, 3))).found == "settled"
    assert account(redis_server) == (25, 0)
    assert books(redis_server) == {"calls": 1, "prompt_tokens": 2, "completion_tokens": 3, "billed_nano_usd": 25}


def test_a_late_settlement_of_unknown_bill_leaves_the_charge(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 60))
    expire(client, budget, call())
    do(client, budget.settle(call(), Bill(None)))
    assert account(redis_server) == (60, 0)
    assert books(redis_server) == {"calls": 1, "unknown_calls": 1, "unknown_nano_usd": 60}


def test_a_late_release_takes_the_charge_back(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 60))
    expire(client, budget, call())
    do(client, budget.release(call()))
    assert account(redis_server) == (0, 0)
    assert not books(redis_server)


def test_more_leases_than_one_script_charges_run_out_together(client, make, redis_server):
    budget = make()
    calls = [call(number) for number in range(450)]
    do(client, *(budget.hold(each, 1) for each in calls))
    assert expire(client, budget, *calls) == 450
    assert account(redis_server) == (450, 0)


def test_settling_after_redis_lost_its_data_charges_the_current_periods(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 60))
    redis_server.flush()
    settle = budget.settle(call(), Bill(25))
    assert do(client, settle).found == "nothing"
    assert do(client, settle).found == "settled"
    assert account(redis_server) == (25, 0)
    assert books(redis_server)["billed_nano_usd"] == 25


def test_a_call_that_is_settled_only_if_held_is_not_charged_once_nothing_is_known_of_it(client, make, redis_server):
    budget = make(LIMIT)
    assert do(client, budget.settle(call(), Bill(25), only_held=True)).found == "unknown"
    assert do(client, budget.settle(call(), Bill(25))).found == "settled"
    assert (account(redis_server), books(redis_server), statistics(redis_server)) == ((0, 0), {}, {})


def test_a_call_that_is_settled_only_if_held_is_charged_where_it_is_held_or_was_charged_its_bound(
    client, make, redis_server
):
    budget = make(LIMIT)
    do(client, budget.hold(call(1), 60))
    assert do(client, budget.settle(call(1), Bill(25), only_held=True)).found == "held"
    do(client, budget.hold(call(2), 60))
    expire(client, budget, call(2))
    assert do(client, budget.settle(call(2), Bill(5), only_held=True)).found == "expired"
    assert do(client, budget.settle(call(2), Bill(5), only_held=True)).found == "settled"
    assert account(redis_server) == (30, 0)


def test_a_call_that_is_settled_under_a_tenant_that_it_was_not_held_under_warns_of_no_limit(client, make, redis_server):
    budget = make(monthly=LIMIT, tenants={"monthly_usd": LIMIT / NANO})
    do(client, budget.hold(call(), 60))
    settlement = do(client, budget.settle(call(tenant="acme"), Bill(55), only_held=True))
    assert (settlement.found, settlement.crossings) == ("held", ())
    assert account(redis_server, period="monthly", label="month1") == (55, 0)
    assert account(redis_server, "tenant:acme", "monthly", "month1") == (0, 0)
