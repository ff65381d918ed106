"""A tenant as one more scope of the budget: its limits, its rate, its leases and its books."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspyq.config.settings import Settings
from dspyq.errors import TenantLimitReached
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.budget_errors import limit_error
from dspyq.guards.interruptions import FailPrediction, Refusal, RetryLater
from dspyq.guards.limit_refusals import refusal_of
from dspyq.guards.limits import Limits
from dspyq.guards.tenants import Tenants
from tests.support.budgets import NANO, PREFIX, Calendar, do, settings
from tests.support.rates import about

LIMIT = 100


def call(number=1, tenant="acme", **fields):
    return BilledCall(f"task:{tenant}:{number}", "qa", "a", "m", tenant=tenant, **fields)


@pytest.fixture
def make(client):
    """Make a budget, its limits in nano-dollars: ``make(daily=100)`` is a limit of each tenant."""

    def make_budget(*, calendar=None, all_daily=None, **tenants):
        stated = {f"{period}_usd": tenants.pop(period) / NANO for period in ("daily", "monthly") if period in tenants}
        made = settings(None if all_daily is None else all_daily / NANO, tenants=stated | tenants)
        return Budget(client, made, calendar or Calendar())

    return make_budget


@pytest.fixture
def limits(client):
    return Limits(client, settings(), Calendar())


def account(redis_server, tenant="acme", period="daily", label="day1"):
    found = redis_server.client().hmget(f"{PREFIX}budget:tenant:{tenant}:{period}:{label}", "settled", "held")
    return tuple(int(amount or 0) for amount in found)


def leases(redis_server, name="tenant-leases"):
    return set(redis_server.client().zrange(f"{PREFIX}budget:{name}", 0, -1))


def test_a_call_is_held_and_settled_in_its_tenant_s_accounts_too(client, make, redis_server):
    budget = make(daily=LIMIT, monthly=2 * LIMIT)
    assert do(client, budget.hold(call(), 60)).is_held
    assert account(redis_server) == (0, 60)
    assert account(redis_server, period="monthly", label="month1") == (0, 60)
    do(client, budget.settle(call(), Bill(40)))
    assert account(redis_server) == (40, 0)
    assert account(redis_server, period="monthly", label="month1") == (40, 0)
    assert account(redis_server, "other") == (0, 0)


def test_a_tenant_at_its_limit_is_refused_and_others_are_not(client, make):
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1), 90), budget.settle(call(1), Bill(90)))
    verdict = do(client, budget.hold(call(2), 20))
    assert (verdict.verdict, verdict.scope, verdict.period) == ("tenant_limit", "tenant:acme", "daily")
    assert verdict.wait_seconds > 0
    assert do(client, budget.hold(call(1, "other"), 20)).is_held
    assert do(client, budget.hold(BilledCall("t:1", "qa", "a", "m"), 20)).is_held


def test_while_a_tenant_s_calls_hold_all_its_limit_leaves_only_its_next_is_refused(client, make):
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1), 90))
    assert do(client, budget.hold(call(2), 20)).verdict == "tenant_busy"
    assert do(client, budget.hold(call(1, "other"), 20)).is_held


def test_a_limit_of_all_is_named_before_the_tenant_s_where_both_are_used_up(client, make):
    """Its end is everyone's, so that the queue pauses for it."""
    budget = make(daily=LIMIT, all_daily=LIMIT)
    do(client, budget.hold(call(1), 100), budget.settle(call(1), Bill(100)))
    assert do(client, budget.hold(call(2), 20)).verdict == "exhausted"


def test_a_tenant_s_hold_that_blocks_is_named_before_others_for_which_a_thread_would_wait(client, make):
    budget = make(daily=LIMIT, all_daily=LIMIT)
    do(client, budget.hold(call(1), 90))
    assert do(client, budget.hold(call(2), 20)).verdict == "tenant_busy"
    assert do(client, budget.hold(call(1, "other"), 20)).verdict == "busy"


def test_an_operator_s_limit_takes_the_place_of_the_configured_one(client, make, limits):
    budget = make(daily=LIMIT)
    limits.override("tenant:acme", "daily", 10)
    assert do(client, budget.hold(call(1), 20)).verdict == "never"
    assert do(client, budget.hold(call(1, "other"), 20)).is_held
    limits.override("tenant:acme", "daily", None)
    assert do(client, budget.hold(call(2), 20)).is_held


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [("tenant_limit", Refusal), ("tenant_busy", RetryLater), ("never", FailPrediction)],
)
def test_a_refusal_by_a_tenant_pauses_no_queue(client, make, verdict, kind):
    budget = make(daily=LIMIT)
    if verdict != "never":
        do(client, budget.hold(call(1), 90))
    if verdict == "tenant_limit":
        do(client, budget.settle(call(1), Bill(90)))
    found = do(client, budget.hold(call(2), LIMIT + 1 if verdict == "never" else 20))
    assert found.verdict == verdict
    refusal = refusal_of(found, lambda: 1.0, run_count=1)
    assert type(refusal) is kind
    assert refusal.is_of_tenant
    assert not getattr(refusal, "pauses_queue", False)
    assert getattr(refusal, "seconds_left", None) is None


def test_a_job_at_its_tenant_s_limit_asks_again_ever_later_and_its_error_names_the_end_of_the_period(client, make):
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1), 90), budget.settle(call(1), Bill(90)))
    verdict = do(client, budget.hold(call(2), 20))
    waits = [refusal_of(verdict, lambda: 1.0, run_count=runs).wait_seconds for runs in (1, 5, 50)]
    assert waits[0] <= 5 < waits[1] < 100 < waits[2] <= 300
    assert refusal_of(verdict, lambda: 1.0, run_count=1).error.retry_after_seconds == verdict.wait_seconds


def test_the_error_of_a_tenant_s_limit_names_the_command_that_raises_it(client, make):
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1), 90), budget.settle(call(1), Bill(90)))
    error = limit_error(do(client, budget.hold(call(2), 20)))
    assert type(error) is TenantLimitReached
    assert "the daily limit of tenant acme, " in str(error)
    assert "raise tenants.daily_usd, or at once: dspyq budget set --daily USD --tenant acme" in str(error)


def test_50_callers_at_once_never_exceed_a_tenant_s_limit(make, redis_server):
    budget_of = [make(daily=1000) for _ in range(10)]
    most, ended = [0], threading.Event()

    def watch():
        with redis_server.client() as watching:
            key = f"{PREFIX}budget:tenant:acme:daily:day1"
            while not ended.is_set():
                most[0] = max(most[0], sum(int(amount or 0) for amount in watching.hmget(key, "settled", "held")))

    def spend(number):
        with redis_server.client(decode_responses=False) as own:
            budget, charged = budget_of[number % 10], 0
            for attempt in range(10):
                each = call(number * 100 + attempt)
                if do(own, budget.hold(each, 60)).is_held:
                    charged += do(own, budget.settle(each, Bill(7 * (attempt % 9)))).charged_nano_usd
            return charged

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(50) as pool:
        charged = sum(pool.map(spend, range(50)))
    ended.set()
    watcher.join()
    assert most[0] <= 1000
    assert account(redis_server) == (charged, 0)
    assert charged > 1000 - 60


def test_an_expired_lease_of_a_tenant_is_charged_in_its_account_and_stands_apart(client, make, redis_server):
    """Workers without tenants sweep the other leases, and would free the bound in all accounts but the tenant's."""
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1), 60), budget.hold(BilledCall("none:1", "qa", "a", "m"), 30))
    assert leases(redis_server) == {call(1).id}
    assert leases(redis_server, "leases") == {"none:1"}
    redis_server.client().zadd(f"{PREFIX}budget:tenant-leases", {call(1).id: 1})
    assert budget.sweep() == 1
    assert account(redis_server) == (60, 0)
    assert not leases(redis_server)
    do(client, budget.settle(call(1), Bill(10)))  # it came after all
    assert account(redis_server) == (10, 0)


@pytest.mark.parametrize("end", ["release", "settle"])
def test_what_ends_a_call_ends_its_lease(client, make, redis_server, end):
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1), 60), budget.hold(call(1), 60))
    do(client, budget.release(call(1)) if end == "release" else budget.settle(call(1), Bill(None)))
    assert not leases(redis_server)
    assert account(redis_server) == ((0, 0) if end == "release" else (60, 0))


def test_a_tenant_that_no_limit_was_read_of_counts_as_limited(client, make):
    budget = make()
    assert budget.is_limited(call())
    do(client, budget.peek(call(), 0))
    assert not budget.is_limited(call())
    assert budget.is_limited(call(tenant="other"))
    assert not budget.is_limited(BilledCall("t:1", "qa", "a", "m"))


def test_a_call_that_is_a_batch_s_and_a_tenant_s_counts_in_both(client, make, redis_server):
    from dspyq.batch.account import BatchAccount

    BatchAccount(client, "b").open()
    budget = make(daily=LIMIT)
    do(client, budget.hold(call(1, batch="b"), 60), budget.settle(call(1, batch="b"), Bill(40)))
    assert account(redis_server) == (40, 0)
    assert redis_server.client().hget(f"{PREFIX}budget:batch:b", "settled") == "40"


def test_a_rate_refuses_calls_beyond_it_and_takes_nothing_for_them(client, make, redis_server):
    budget = make(daily=LIMIT, requests_per_second=1 / 16, burst_requests=2)
    verdicts = [do(client, budget.hold(call(number), 10)) for number in range(5)]
    assert [each.verdict for each in verdicts] == ["held", "held", *["tenant_rate"] * 3]
    waits = [each.wait_seconds for each in verdicts[2:]]
    assert waits[0] == about(16)
    assert waits == sorted(waits)
    assert waits[2] - waits[0] == about(32)  # they come back one by one
    assert account(redis_server) == (0, 20)
    assert do(client, budget.hold(call(0), 10)).is_held  # a repetition needs no turn
    assert do(client, budget.hold(call(1, "other"), 10)).is_held
    refusal = refusal_of(verdicts[2], lambda: 1.0, run_count=1)
    assert isinstance(refusal, RetryLater)
    assert refusal.seconds_left is None


def test_calls_far_beyond_a_rate_come_back_late_and_together(client, make):
    budget = make(requests_per_second=0.1)
    waits = [do(client, budget.hold(call(number), 10)).wait_seconds for number in range(12)]
    assert max(waits) <= 60
    assert waits[-1] == waits[-2] == 60


def test_an_operator_s_rate_takes_the_place_of_the_configured_one(client, make):
    budget, tenants = make(requests_per_second=0.01), Tenants(client, settings(), Calendar())
    tenants.set_rate("acme", 1_000_000.0, 5)
    assert [do(client, budget.hold(call(number), 10)).verdict for number in range(5)] == ["held"] * 5
    assert tenants.rates(["acme"])["acme"] == (1_000_000.0, 5, True)
    tenants.set_rate("acme", None)
    assert do(client, budget.hold(call(9), 10)).verdict == "held"
    assert do(client, budget.hold(call(10), 10)).verdict == "tenant_rate"


@pytest.mark.parametrize("damage", [("hset", "requests_at", "x"), ("set", "x")])
def test_a_damaged_rate_begins_anew(client, make, damage):
    command, *values = damage
    getattr(client, command)(f"{PREFIX}tenant-rate:acme", *values)
    budget = make(requests_per_second=0.5)
    assert [do(client, budget.hold(call(number), 10)).verdict for number in range(2)] == ["held", "tenant_rate"]


def test_the_books_of_a_tenant_add_up_by_day(client, make):
    calendar = Calendar("2026-11-29", "2026-11")
    budget = make(calendar=calendar)
    do(client, budget.hold(call(1), 60), budget.settle(call(1), Bill(40, 10, 5)))
    calendar.set("2026-11-30", "2026-11")
    do(client, budget.hold(call(2), 60), budget.settle(call(2), Bill(30, 1, 2)))
    do(client, budget.hold(call(3), 60), budget.settle(call(3), Bill(None)))
    do(client, budget.hold(call(1, "other"), 60), budget.settle(call(1, "other"), Bill(20)))
    tenants = Tenants(client, settings(), calendar)
    assert tenants.names() == ["acme", "other"]
    found = [
        (each.day, each.tenant, each.calls, each.prompt_tokens, each.billed_nano_usd, each.unknown_nano_usd)
        for each in tenants.costs(["acme", "other"], days=2)
    ]
    assert found == [
        ("2026-11-30", "acme", 2, 1, 30, 60),
        ("2026-11-30", "other", 1, 0, 20, 0),
        ("2026-11-29", "acme", 1, 10, 40, 0),
    ]
    assert [each.day for each in tenants.costs(["acme"], days=1)] == ["2026-11-30"]


def test_what_is_forgotten_of_a_tenant_is_its_limits_accounts_and_if_asked_its_books(
    client, make, limits, redis_server
):
    budget, tenants = make(requests_per_second=5.0), Tenants(client, settings(), Calendar())
    for name in ("acme", "acme2"):
        limits.override(f"tenant:{name}", "daily", 500)
        tenants.set_rate(name, 3.0)
        do(client, budget.hold(call(1, name), 60), budget.settle(call(1, name), Bill(40)))
    tenants.forget("acme", books=False)
    left = set(redis_server.keys("*acme:*"))
    assert {each for each in left if "budget:hold" not in each} == {f"{PREFIX}tenant-costs:acme:month1"}
    tenants.forget("acme", books=True)
    assert not {each for each in redis_server.keys("*acme:*") if "budget:hold" not in each}
    assert tenants.names() == ["acme2"]
    assert account(redis_server, "acme2") == (40, 0)
    assert [each.limit_nano_usd for each in limits.of_tenants(["acme", "acme2"])] == [None, None, 500, None]


def test_a_call_without_a_tenant_reads_and_writes_what_it_did_before(client, make, redis_server):
    budget = make(daily=LIMIT, requests_per_second=1.0)
    plain = BilledCall("t:1:1", "qa", "a", "m")
    do(client, budget.hold(plain, 10), budget.settle(plain, Bill(5)))
    assert not [key for key in redis_server.keys("*") if "tenant" in key]


def test_a_tenant_has_the_configured_limits_of_the_table_tenants():
    made = Settings(tenants={"daily_usd": 2, "requests_per_second": 4.0})
    assert made.tenants.rate == "4.0 1"
    assert Settings().tenants.rate == ""
