"""The budget guard: what may be spent is held before each call, and what was spent is settled after it."""

import logging
import os
import threading
import time
from datetime import UTC, datetime

import pytest
import redis

from dspyq.config.periods import Calendar
from dspyq.errors import BudgetExceeded, Unavailable
from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget
from dspyq.guards.budget_errors import limit_error
from dspyq.guards.limits import Limits
from tests.support.budgets import NANO, PREFIX, account, books, call, do, expire, refused, settings, statistics
from tests.support.budgets import Calendar as SetCalendar

LIMIT = 100


def test_a_call_is_held_in_every_account_with_a_limit_and_settled_in_all_to_what_it_cost(client, make, redis_server):
    budget = make(LIMIT, program_monthly=LIMIT)
    assert do(client, budget.hold(call(), 60)).is_held
    keys = [
        (scope, *at)
        for scope in ("all", "program:qa", "variant:qa.a")
        for at in (("daily", "day1"), ("monthly", "month1"))
    ]
    limited = {("all", "daily", "day1"), ("program:qa", "monthly", "month1")}
    assert {key: account(redis_server, *key) for key in keys} == {key: (0, 60 if key in limited else 0) for key in keys}
    settlement = do(client, budget.settle(call(), Bill(25, 10, 5)))
    assert (settlement.found, settlement.charged_nano_usd, settlement.held_nano_usd) == ("held", 25, 60)
    assert {account(redis_server, *key) for key in keys} == {(25, 0)}
    assert books(redis_server) == {"calls": 1, "prompt_tokens": 10, "completion_tokens": 5, "billed_nano_usd": 25}


def test_a_call_that_a_worker_of_0_1_held_in_every_account_is_freed_in_each(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 60))
    plain = redis_server.client()
    plain.hdel(f"{PREFIX}budget:hold:{call().id}", "held_in")
    plain.hset(f"{PREFIX}budget:program:qa:daily:day1", "held", 60)
    do(client, budget.settle(call(), Bill(25)))
    assert account(redis_server) == account(redis_server, "program:qa") == (25, 0)


def test_a_call_that_a_worker_of_0_1_settled_is_neither_held_nor_settled_again(client, make, redis_server):
    budget = make(LIMIT)
    plain = redis_server.client()
    plain.hset(f"{PREFIX}budget:hold:{call().id}", "state", "settled")
    assert do(client, budget.settle(call(), Bill(25))).found == "settled"
    with pytest.raises(redis.ResponseError, match="is settled"):
        do(client, budget.hold(call(), 60))
    assert account(redis_server) == (0, 0)


def test_a_limit_that_is_set_while_a_call_is_under_way_counts_it_once_it_is_settled(client, make, redis_server):
    budget = make()
    do(client, budget.hold(call(1), 60))
    Limits(client, settings(), SetCalendar()).override("all", "daily", 100)
    do(client, budget.hold(call(2), 50))
    assert account(redis_server) == (0, 50)
    do(client, budget.settle(call(1), Bill(40)))
    assert account(redis_server) == (40, 50)
    assert refused(do(client, budget.hold(call(3), 11))) == ("busy", "all", "daily")


def test_while_only_others_holds_stand_in_its_way_a_call_is_busy(client, make):
    budget = make(LIMIT)
    do(client, budget.hold(call(1), 60))
    verdict = do(client, budget.hold(call(2), 60))
    assert refused(verdict) == ("busy", "all", "daily")
    do(client, budget.settle(call(1), Bill(40)))
    assert do(client, budget.hold(call(2), 60)).is_held


def test_what_is_settled_exhausts_a_limit_until_its_period_ends(client, make):
    budget = make(LIMIT, calendar=Calendar("UTC"))
    do(client, budget.hold(call(1), 60), budget.settle(call(1), Bill(60)))
    assert do(client, budget.hold(call(2), 40), budget.release(call(2))) is None  # to the last nano-dollar
    verdict = do(client, budget.hold(call(3), 41))
    assert refused(verdict) == ("exhausted", "all", "daily")
    seconds, _ = client.time()
    assert verdict.wait_seconds == pytest.approx(86_400 - seconds % 86_400, abs=5)


def test_of_two_exhausted_limits_the_one_that_ends_last_sets_the_wait(client, make):
    budget = make(LIMIT, LIMIT)
    do(client, budget.hold(call(1), 60), budget.settle(call(1), Bill(60)))
    assert refused(do(client, budget.hold(call(2), 41))) == ("exhausted", "all", "monthly")


def test_a_bound_above_a_whole_limit_never_fits(client, make):
    budget = make(LIMIT, program_monthly=50)
    assert refused(do(client, budget.hold(call(), LIMIT + 1))) == ("never", "all", "daily")
    assert refused(do(client, budget.hold(call(), 51))) == ("never", "program:qa", "monthly")


@pytest.mark.parametrize(
    ("limits", "scope", "period"),
    [
        ({"daily": LIMIT}, "all", "daily"),
        ({"monthly": LIMIT}, "all", "monthly"),
        ({"program_daily": LIMIT}, "program:qa", "daily"),
        ({"program_monthly": LIMIT}, "program:qa", "monthly"),
        ({"variant_daily": LIMIT}, "variant:qa.a", "daily"),
        ({"variant_monthly": LIMIT}, "variant:qa.a", "monthly"),
    ],
)
def test_each_scope_and_period_has_a_limit_of_its_own(limits, scope, period, client, make):
    budget = make(**limits)
    do(client, budget.hold(call(1), 60))
    assert refused(do(client, budget.hold(call(2), 60))) == ("busy", scope, period)
    elsewhere = {"all": None, "program:qa": call(3, program="other"), "variant:qa.a": call(3, variant="b")}[scope]
    if elsewhere:
        assert do(client, budget.hold(elsewhere, 60)).is_held


def test_a_refused_call_leaves_nothing_behind(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(1), LIMIT + 1))
    assert not redis_server.keys()


def test_without_limits_everything_is_held_and_counted(client, make, redis_server):
    budget = make()
    assert do(client, budget.hold(call(), 10**15)).is_held
    do(client, budget.settle(call(), Bill(10**15)))
    assert account(redis_server, "variant:qa.a", "monthly", "month1") == (10**15, 0)


def test_a_peek_returns_the_verdict_of_a_hold_and_holds_nothing(client, make, redis_server):
    budget = make(LIMIT)
    assert do(client, budget.peek(call(), 60)).is_held
    assert not redis_server.keys()
    do(client, budget.hold(call(1), 60))
    assert refused(do(client, budget.peek(call(2), 60))) == ("busy", "all", "daily")


def test_a_free_call_is_held_and_settled(client, make, redis_server):
    budget = make(0)
    assert do(client, budget.hold(call(), 0)).is_held
    assert do(client, budget.settle(call(), Bill(0, 3, 4))).crossings == ()
    assert books(redis_server) == {"calls": 1, "prompt_tokens": 3, "completion_tokens": 4}
    assert do(client, budget.hold(call(2), 0), budget.release(call(2))) is None
    assert refused(do(client, budget.hold(call(3), 1))) == ("never", "all", "daily")


def test_every_script_bears_to_run_twice(client, make, redis_server):
    budget = make(LIMIT)
    hold, settle = budget.hold(call(1), 60), budget.settle(call(1), Bill(25, 1, 1))
    assert do(client, hold, hold).is_held
    assert account(redis_server) == (0, 60)
    assert do(client, settle, settle).found == "settled"
    assert account(redis_server) == (25, 0)
    assert books(redis_server)["calls"] == 1
    do(client, budget.hold(call(2), 10))
    do(client, budget.release(call(2)), budget.release(call(2)))
    assert account(redis_server) == (25, 0)


def test_a_call_id_is_used_once(client, make):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 10), budget.settle(call(), Bill(10)))
    with pytest.raises(redis.ResponseError, match="each attempt needs an id of its own"):
        do(client, budget.hold(call(), 10))


def test_a_released_call_may_be_held_again(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(), 10), budget.release(call()))
    assert do(client, budget.hold(call(), 20)).is_held
    assert account(redis_server) == (0, 20)


def test_a_call_of_unknown_bill_is_charged_its_bound_and_listed(client, make, redis_server):
    budget = make(LIMIT)
    settlement = do(client, budget.hold(call(), 60), budget.settle(call(), Bill(None)))
    assert settlement.charged_nano_usd == 60
    assert account(redis_server) == (60, 0)
    assert books(redis_server) == {"calls": 1, "unknown_calls": 1, "unknown_nano_usd": 60}


def test_a_bill_above_its_hold_is_settled_in_full_counted_and_logged(client, make, redis_server, caplog):
    budget = make(LIMIT)
    settlement = do(client, budget.hold(call(), 60), budget.settle(call(), Bill(130)))
    assert settlement.is_above_hold
    assert account(redis_server) == (130, 0)
    assert statistics(redis_server)["bills_above_hold"] == 1
    assert "call_above_its_hold" in caplog.text
    assert "cost_usd=1.3e-07 held_usd=6e-08" in caplog.text
    assert refused(do(client, budget.hold(call(2), 0))) == ("exhausted", "all", "daily")


def test_settlement_touches_the_day_and_month_of_the_hold(client, make, redis_server):
    calendar = SetCalendar("day1", "month1")
    budget = make(LIMIT, calendar=calendar)
    for number in (1, 2, 3):
        do(client, budget.hold(call(number), 20))
    calendar.set("day2", "month2")
    do(client, budget.settle(call(1), Bill(10)), budget.release(call(2)))
    expire(client, budget, call(3))
    assert account(redis_server, label="day1") == (30, 0)
    assert account(redis_server, period="monthly", label="month1") == (30, 0)
    assert not redis_server.keys("*day2*")
    assert not redis_server.keys("*month2*")


def test_a_new_day_frees_the_daily_limit_and_not_the_monthly_one(client, make):
    calendar = SetCalendar("day1", "month1")
    budget = make(LIMIT, 150, calendar=calendar)
    do(client, budget.hold(call(1), LIMIT), budget.settle(call(1), Bill(LIMIT)))
    assert refused(do(client, budget.hold(call(2), 1))) == ("exhausted", "all", "daily")
    calendar.set("day2", "month1")
    assert do(client, budget.hold(call(2), 50)).is_held
    assert refused(do(client, budget.hold(call(3), 50))) == ("busy", "all", "monthly")
    calendar.set("day3", "month2")
    assert do(client, budget.hold(call(3), 50)).is_held


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_redis_chooses_the_period_where_the_callers_clock_is_a_day_off(days, client, make, redis_server):
    seconds, _ = client.time()
    budget = make(LIMIT, calendar=Calendar("Europe/Berlin", clock=lambda: time.time() + days * 86_400))
    assert do(client, budget.hold(call(), 60)).is_held
    today = Calendar("Europe/Berlin").at(seconds).today
    assert account(redis_server, label=today) == (0, 60)


@pytest.mark.parametrize("days", [-400, 3])
def test_a_callers_clock_that_is_days_off_is_named(days, client, make, redis_server):
    budget = make(LIMIT, calendar=Calendar("UTC", clock=lambda: time.time() + days * 86_400))
    with pytest.raises(Unavailable, match="this machine's clock is wrong"):
        do(client, budget.hold(call(), 60))
    assert not redis_server.keys()


def test_a_wrong_clock_hinders_no_settlement(client, make, redis_server):
    do(client, make(LIMIT).hold(call(), 60))
    wrong = make(LIMIT, calendar=Calendar("UTC", clock=lambda: 0.0))
    assert do(client, wrong.settle(call(), Bill(25))).found == "held"
    assert account(redis_server) == (25, 0)
    assert do(client, wrong.settle(call(2), Bill(25))).found == "clock"


def test_the_hour_that_summer_time_repeats_belongs_to_one_day():
    calendar = Calendar("Europe/Berlin")
    first, again = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC).timestamp() for hour in (0, 1))  # both 2:30 there
    assert calendar.at(first).days == calendar.at(again).days


def test_amounts_beyond_two_to_the_31_stay_exact(client, make, redis_server):
    limit = 9_000_000 * NANO
    budget = make(limit)
    do(client, budget.hold(call(1), limit - 1))
    assert refused(do(client, budget.hold(call(2), 2))) == ("busy", "all", "daily")
    do(client, budget.settle(call(1), Bill(limit - 3)))
    assert account(redis_server) == (limit - 3, 0)
    assert do(client, budget.hold(call(2), 3)).is_held
    assert do(client, budget.hold(call(3), 1)).limit_nano_usd == limit


@pytest.mark.parametrize("amount", [-1, 2**53 + 1])
def test_an_amount_that_cannot_be_counted_exactly_is_refused(amount, make):
    with pytest.raises(ValueError, match="a call costs from 0 to"):
        make().hold(call(), amount)
    with pytest.raises(ValueError, match="a call costs from 0 to"):
        make().settle(call(), Bill(amount))


def test_a_raise_works_at_once_for_every_verdict(client, make):
    budget = make(LIMIT)
    limits = Limits(client, settings(), SetCalendar())
    do(client, budget.hold(call(1), 90), budget.settle(call(1), Bill(90)))
    assert do(client, budget.hold(call(2), 11)).verdict == "exhausted"
    assert do(client, budget.hold(call(2), 101)).verdict == "never"
    limits.override("all", "daily", 300)
    assert do(client, budget.hold(call(2), 101)).is_held
    assert do(client, budget.hold(call(3), 301)).verdict == "never"
    limits.override("all", "daily", None)
    assert do(client, budget.hold(call(4), 11)).verdict == "exhausted"


def test_an_operators_limit_holds_where_none_is_configured(client, make):
    Limits(client, settings(), SetCalendar()).override("variant:qa.a", "monthly", 50)
    assert refused(do(client, make().hold(call(), 51))) == ("never", "variant:qa.a", "monthly")
    assert do(client, make().hold(call(2, variant="b"), 51)).is_held


def test_the_accounts_with_a_limit_are_read_without_those_of_others(client, redis_server):
    limits = Limits(client, settings(0.001), SetCalendar())
    limits.override("variant:qa.b", "monthly", 50)
    with redis_server.counted() as usage:
        found = limits.limited_accounts()
    assert {(each.scope, each.period) for each in found} == {("all", "daily"), ("variant:qa.b", "monthly")}
    assert usage.commands["hmget"] == 3, "the day of all calls, day and month of the variant"


def test_each_share_of_a_limit_is_warned_of_once(client, make, redis_server, caplog):
    caplog.set_level(logging.WARNING, "dspyq.budget")
    budget = make(LIMIT)
    crossed = []
    for number, amount in enumerate([49, 1, 10, 20, 5, 15]):
        settlement = do(client, budget.hold(call(number), 20), budget.settle(call(number), Bill(amount)))
        crossed.append([(crossing.percentage, crossing.settled_nano_usd) for crossing in settlement.crossings])
    assert crossed == [[], [(50, 50)], [], [(80, 80)], [], [(100, 100)]]
    events = [record.msg for record in caplog.records if record.msg.name == "budget_threshold"]
    assert [event.fields["percentage"] for event in events] == [50, 80, 100]
    first = {"scope": "all calls", "period": "daily", "percentage": 50, "spent_usd": 5e-8, "limit_usd": 1e-7}
    assert events[0].fields == first
    assert statistics(redis_server)["warnings"] == 3


def test_a_raised_limit_is_warned_of_anew(client, make):
    budget = make(LIMIT)
    do(client, budget.hold(call(1), 100), budget.settle(call(1), Bill(100)))
    Limits(client, settings(), SetCalendar()).override("all", "daily", 210)
    settlement = do(client, budget.hold(call(2), 10), budget.settle(call(2), Bill(10)))
    assert [(crossing.percentage, crossing.limit_nano_usd) for crossing in settlement.crossings] == [(50, 210)]


def test_a_reset_frees_what_was_settled_and_a_late_settlement_never_frees_more(client, make, redis_server):
    budget = make(LIMIT)
    do(client, budget.hold(call(1), 60))
    expire(client, budget, call(1))
    do(client, budget.hold(call(2), 30))
    Limits(client, settings(), SetCalendar()).reset("all", "daily")
    assert account(redis_server) == (0, 30)
    do(client, budget.settle(call(1), Bill(10)))
    assert account(redis_server) == (0, 30)
    assert account(redis_server, "program:qa") == (10, 0)  # it has no limit, and holds nothing


def test_settling_and_releasing_work_in_a_redis_that_is_out_of_memory_and_holding_does_not(fresh_redis_server):
    with fresh_redis_server() as server, server.client(decode_responses=False) as client:
        budget = Budget(client, settings(), SetCalendar())
        for number in (1, 2, 3):
            do(client, budget.hold(call(number), 20))
        server.fill()
        with pytest.raises(redis.OutOfMemoryError):
            do(client, budget.hold(call(4), 20))
        assert do(client, budget.settle(call(1), Bill(5, 1, 1))).found == "held"
        do(client, budget.release(call(2)))
        assert expire_past(server, budget, call(3)) == 1
        assert account(server) == (25, 0)
        assert books(server)["calls"] == 2
        server.make_room()
        assert do(client, budget.hold(call(4), 20)).is_held


def expire_past(server, budget, held):
    """As ``expire``, where only scripts may write."""
    script = "#!lua flags=allow-oom\nreturn redis.call('ZADD', KEYS[1], 1, ARGV[1])"
    server.client().eval(script, 1, f"{PREFIX}budget:leases", held.id)
    return budget.sweep()


@pytest.mark.parametrize(
    ("limits", "bound", "told"),
    [
        ({"daily": LIMIT}, 101, "this call may cost more than the daily limit of all calls, $0.0000001: lower its"),
        ({"program_monthly": 95}, 10, "the monthly limit of program qa, $0.000000095, is used up; raise programs.qa.m"),
        ({"variant_daily": 95}, 10, "dspyq budget set --daily USD --program qa --variant a"),
    ],
)
def test_a_refusal_names_the_limit_and_the_remedy(limits, bound, told, client, make):
    budget = make(**limits)
    do(client, budget.hold(call(1), 90), budget.settle(call(1), Bill(90)))
    error = limit_error(do(client, budget.hold(call(2), bound)))
    assert isinstance(error, BudgetExceeded)
    assert told in str(error)


def test_what_is_kept_of_a_call_is_forgotten_in_time_and_the_books_stay_a_year(client, make, redis_server):
    budget = make(LIMIT, calendar=Calendar("UTC"))
    do(client, budget.hold(call(1), 10), budget.hold(call(2), 10), budget.settle(call(1), Bill(5)))
    expire(client, budget, call(2))
    text = redis_server.client()
    assert 0 < text.ttl(f"{PREFIX}budget:hold:{call(1).id}") <= 900
    assert 0 < text.ttl(f"{PREFIX}budget:hold:{call(2).id}") <= 7 * 86_400
    assert all(text.ttl(key) > 0 for key in redis_server.keys(f"{PREFIX}budget:all:*"))
    (book,) = redis_server.keys(f"{PREFIX}costs:*")
    assert text.ttl(book) > 365 * 86_400


def spend(seed, calls):
    """Hold and settle from several threads; return what was charged or is held, the refusals, and what is held."""
    import random
    from concurrent.futures import ThreadPoolExecutor

    from dspyq.config.settings import get_settings
    from dspyq.guards.billing import Bill, BilledCall
    from dspyq.guards.budget import Budget
    from dspyq.store.clients import jobs_client
    from dspyq.store.scripts import run_together

    client = jobs_client()
    budget = Budget(client, get_settings())

    def run(thread):
        chance = random.Random(f"{seed} {thread}")  # noqa: S311 - amounts, no secrets
        charged, refusals, held = 0, 0, 0
        for number in range(calls):
            call = BilledCall(f"{seed}-{thread}:1:{number}", "qa", "control", "control")
            bound = chance.randrange(1, 2_000_000)
            verdict = run_together(client, [budget.hold(call, bound)])[0]
            if not verdict.is_held:
                refusals += 1
                continue
            outcome = chance.choice(["billed", "billed", "billed", "unknown", "released", "killed"])
            if outcome == "killed":
                held += bound
                charged += bound
            elif outcome == "released":
                run_together(client, [budget.release(call)])
            else:
                bill = chance.randrange(bound + 1) if outcome == "billed" else None
                charged += run_together(client, [budget.settle(call, Bill(bill))])[0].charged_nano_usd
        return charged, refusals, held

    with ThreadPoolExecutor(3) as pool:
        return [sum(column) for column in zip(*pool.map(run, range(3)), strict=True)]


def test_processes_that_spend_at_once_never_exceed_a_limit(start_producer, settings_file, redis_server, client):
    limit_usd = 0.2
    path = settings_file({"budget": {"daily_usd": limit_usd, "timezone": "Europe/Berlin"}})
    seconds, _ = client.time()
    key = f"{PREFIX}budget:all:daily:{Calendar('Europe/Berlin').at(seconds).today}"
    most, ended = [0], threading.Event()

    def watch():
        with redis_server.client() as watching:
            while not ended.is_set():
                most[0] = max(most[0], sum(int(amount or 0) for amount in watching.hmget(key, "settled", "held")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        processes = [start_producer(spend, path, seed=f"{os.getpid()}-{number}", calls=150) for number in range(3)]
        results = [process.result() for process in processes]
        charged, refusals, unsettled = (sum(column) for column in zip(*results, strict=True))
    finally:
        ended.set()
        watcher.join()
    limit = round(limit_usd * NANO)
    settled, held = (int(amount) for amount in redis_server.client().hmget(key, "settled", "held"))
    assert refusals > 0
    assert held == unsettled
    assert settled + held == charged
    assert limit - 2_000_000 < settled + held <= limit
    assert most[0] <= limit
    leases = redis_server.client().zrange(f"{PREFIX}budget:leases", 0, -1)
    client.zadd(f"{PREFIX}budget:leases", dict.fromkeys(leases, 1))
    Budget(client, settings()).sweep()
    assert redis_server.client().hmget(key, "settled", "held") == [str(charged), "0"]


def test_a_limit_that_an_operator_set_is_known_where_redis_cannot_be_asked(client, make):
    budget = make()
    do(client, budget.hold(call(1), 1))
    assert not budget.is_limited(call())
    Limits(client, settings()).override("program:qa", "daily", LIMIT)
    do(client, budget.hold(call(2), 1))
    assert budget.is_limited(call())
    Limits(client, settings()).override("program:qa", "daily", None)
    do(client, budget.peek(call(), 1))
    assert not budget.is_limited(call())


@pytest.mark.parametrize("ends", ["settled", "expired", "unheld"])
def test_a_shadow_run_is_charged_to_its_own_account_however_it_ends(client, make, redis_server, ends):
    budget, shadow = make(LIMIT), call(1)._replace(payer="shadow")
    if ends != "unheld":
        assert do(client, budget.hold(shadow, 7)).is_held
    if ends == "expired":
        expire(client, budget, shadow)
    else:
        do(client, budget.settle(shadow, Bill(7)))
    assert account(redis_server, "shadow:qa") == (7, 0)
    assert account(redis_server, "program:qa") == (7, 0)
    assert account(redis_server) == (7, 0)
    assert account(redis_server, "variant:qa.a") == (0, 0)
    assert books(redis_server, of="shadow:qa.a m ")["calls"] == 1
    assert books(redis_server) == {}
