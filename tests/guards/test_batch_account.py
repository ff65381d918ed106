"""A batch's own account: what it may spend, what it has spent, and which of its calls are on no row yet."""

import itertools

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dspyq.batch.account import BatchAccount, BatchBooks, JobCost
from dspyq.core.money import to_usd
from dspyq.errors import BatchLimitReached, BatchShareUsed
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.budget_errors import batch_error
from tests.properties.profiles import examples
from tests.support.budgets import NANO, PREFIX, Calendar, call, do, settings

BATCH = "00ff00ff00ff00ff"
LIMIT = 100


@pytest.fixture
def account(client):
    return BatchAccount(client, BATCH)


@pytest.fixture
def budget(client):
    return Budget(client, settings(), Calendar())


def limited(client, daily):
    return Budget(client, settings(daily / NANO), Calendar())


def own(number=1, **options):
    return call(number, batch=BATCH, **options)


def of_task(task_id, number=1):
    return BilledCall(f"{task_id}:1:a:{number}", "qa", "a", "m", BATCH)


def expire(client, budget, *calls):
    for each in calls:
        client.zadd(f"{PREFIX}budget:leases", {each.id: 1})
    assert budget.sweep() == len(calls)


def test_a_call_of_a_batch_without_an_account_is_refused_and_leaves_nothing_behind(client, budget, redis_server):
    verdict = do(client, budget.hold(own(), 1))
    assert verdict.verdict == "batch_closed"
    assert isinstance(batch_error(verdict), BatchLimitReached)
    assert not redis_server.keys()


def test_a_batch_spends_up_to_its_limit_to_the_last_nano_dollar(client, budget, account):
    account.open(max_usd=LIMIT / NANO)
    do(client, budget.hold(own(1), 60))
    assert do(client, budget.hold(own(2), 41)).verdict == "batch_busy"
    do(client, budget.settle(own(1), Bill(60, 7, 3)))
    refused = do(client, budget.hold(own(2), 41))
    assert refused.verdict == "batch_limit"
    assert "--max-usd" in str(batch_error(refused))
    assert BATCH in str(batch_error(refused))
    assert do(client, budget.hold(own(3), 40)).is_held
    assert do(client, budget.hold(call(4), 10**9)).is_held  # of no batch
    assert account.read() == BatchBooks(60, 40, LIMIT, 1, 60, 0, 0, 7, 3)


def test_opened_again_a_batch_has_its_new_limits_and_what_it_has_spent(client, budget, account):
    account.open(max_usd=LIMIT / NANO, budget_share=0.5, rate_share=0.5)
    do(client, budget.hold(own(1), LIMIT), budget.settle(own(1), Bill(LIMIT)))
    assert not do(client, budget.hold(own(2), 1)).is_held
    account.open(max_usd=(LIMIT + 1) / NANO)
    assert do(client, budget.hold(own(2), 1)).is_held
    assert account.read().settled_nano_usd == LIMIT
    assert client.hmget(f"{PREFIX}budget:batch:{BATCH}", "budget_share", "rate_share") == [None, None]


def test_a_limit_holds_also_where_redis_has_lost_what_was_spent(client, budget, account):
    account.open(max_usd=LIMIT / NANO, spent_nano_usd=70)
    assert do(client, budget.hold(own(1), 31)).verdict == "batch_limit"
    do(client, budget.hold(own(2), 30), budget.settle(own(2), Bill(20)))
    account.open(max_usd=LIMIT / NANO, spent_nano_usd=70)
    assert account.read().settled_nano_usd == 90


def test_a_batch_gets_its_share_of_what_others_leave_of_the_day(client, account):
    budget = limited(client, 1000)
    account.open(budget_share=0.5)
    do(client, budget.hold(call(1), 200), budget.settle(call(1), Bill(200)))
    do(client, budget.hold(own(2), 300))
    assert do(client, budget.hold(own(3), 101)).verdict == "batch_busy"  # half of 800
    do(client, budget.settle(own(2), Bill(300)))
    refused = do(client, budget.hold(own(3), 101))
    assert (refused.verdict, refused.limit_nano_usd) == ("batch_share", 400)
    assert isinstance(batch_error(refused), BatchShareUsed)
    assert batch_error(refused).retry_after_seconds > 0
    assert do(client, budget.hold(own(3), 100)).is_held


def test_a_share_counts_the_day_that_a_call_was_held_in(client, account):
    calendar = Calendar("day1")
    budget = Budget(client, settings(100 / NANO), calendar)
    account.open(budget_share=0.5)
    do(client, budget.hold(own(1), 50))
    calendar.set("day2", "month1")
    do(client, budget.settle(own(1), Bill(50)))
    assert do(client, budget.hold(own(2), 50)).is_held
    assert account.read().settled_nano_usd == 50


def test_without_a_daily_limit_there_is_nothing_to_share(client, budget, account):
    account.open(budget_share=0.01)
    assert do(client, budget.hold(own(), 10**12)).is_held


def test_a_call_of_a_batch_counts_as_limited_until_redis_has_replied(client, budget, account):
    assert budget.is_limited(own())
    account.open()
    do(client, budget.peek(own(), 0))
    assert not budget.is_limited(own())
    account.open(max_usd=1)
    do(client, budget.peek(own(), 0))
    assert budget.is_limited(own())


def test_a_process_keeps_what_limits_only_the_batches_that_asked_last(client, budget, monkeypatch):
    monkeypatch.setattr("dspyq.guards.budget._MOST_SPECIAL", 2)
    for number in (1, 2, 1, 3):
        BatchAccount(client, f"batch{number}").open()
        do(client, budget.peek(call(batch=f"batch{number}"), 0))
    assert [budget.is_limited(call(batch=f"batch{number}")) for number in (1, 2, 3)] == [False, True, False]


def test_the_statement_names_each_call_that_is_on_no_row_and_why(client, budget, account):
    account.open()
    billed, unknown, lost, held, released = (of_task(name) for name in ("b", "u", "l", "h", "r"))
    do(client, *(budget.hold(each, 10) for each in (billed, unknown, lost, held, released)))
    do(client, budget.settle(billed, Bill(7)), budget.settle(unknown, Bill(None)), budget.release(released))
    expire(client, budget, lost)
    books, calls = account.statement()
    assert [(each.call_id, each.task_id, each.state, each.charged_nano_usd, each.bound_nano_usd) for each in calls] == [
        ("b:1:a:1", "b", "billed", 7, 0),
        ("h:1:a:1", "h", "held", 0, 10),
        ("l:1:a:1", "l", "lost", 10, 0),
        ("u:1:a:1", "u", "unknown", 10, 0),
    ]
    assert (books.settled_nano_usd, books.held_nano_usd, books.unknown_calls, books.unknown_nano_usd) == (27, 10, 2, 20)


def test_a_row_carries_the_recorded_calls_of_its_runs_and_collecting_it_twice_changes_nothing(client, budget, account):
    account.open()
    attempts = [of_task("t", number) for number in (1, 2, 3)]
    do(client, *(budget.hold(each, 10) for each in attempts))
    do(client, budget.settle(attempts[0], Bill(None, 5, 0)), budget.settle(attempts[1], Bill(4, 2, 1)))
    expire(client, budget, attempts[2])
    cost, nothing = account.costs(["t", "never asked"])
    assert (cost.nano_usd, cost.prompt_tokens, cost.completion_tokens) == (14, 7, 1)
    assert nothing == JobCost(0, 0, 0, "")
    assert account.collected({"t": cost.receipt, "never asked": ""}) == 2
    assert account.collected({"t": cost.receipt}) == 0
    assert account.costs(["t"]) == [JobCost(0, 0, 0, "")]
    assert [each.state for each in account.statement()[1]] == ["lost"]


def test_a_late_bill_takes_the_place_of_a_lost_call_s_bound(client, budget, account):
    account.open()
    do(client, budget.hold(of_task("t"), 10))
    expire(client, budget, of_task("t"))
    do(client, budget.settle(of_task("t"), Bill(3, 2, 1)))
    books, (only,) = account.statement()
    assert (only.state, only.charged_nano_usd, books.settled_nano_usd) == ("billed", 3, 3)
    assert (books.calls, books.unknown_calls, books.unknown_nano_usd, books.prompt_tokens) == (1, 0, 0, 2)


def test_what_a_batch_leaves_in_redis_expires(client, budget, account, redis_server):
    account.open()
    do(client, budget.hold(of_task("t"), 10), budget.settle(of_task("t"), Bill(1)))
    keys = redis_server.keys(f"{PREFIX}budget:batch:*")
    assert len(keys) == 3
    assert all(0 < client.ttl(key) <= 400 * 86_400 for key in keys)


OPERATIONS = st.tuples(
    st.sampled_from(["hold", "hold", "settle", "unknown", "release", "expire", "collect"]),
    st.integers(0, 5),
    st.integers(0, 40),
    st.sampled_from([1, 1, 2]),
)


@pytest.mark.property
@hypothesis_settings(max_examples=examples(30, 80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATIONS, max_size=40))
def test_whatever_happens_in_whatever_order_rows_and_statement_are_the_books(redis_server, client, operations):
    redis_server.flush()
    budget, account = Budget(client, settings(), Calendar()), BatchAccount(client, BATCH)
    account.open(max_usd=LIMIT / NANO)
    on_rows, above_hold, bounds, runs = 0, 0, {}, dict.fromkeys(range(6), 1)

    def attempt(number):
        return BilledCall(f"t{number % 3}:{runs[number]}:a:{number}", "qa", "a", "m", BATCH)

    for what, number, amount, times in operations:
        each = attempt(number)
        if what == "hold" and number not in bounds:
            if do(client, *[budget.hold(each, amount)] * times).is_held:
                bounds[number] = amount
        elif what == "expire" and number in bounds:
            client.zadd(f"{PREFIX}budget:leases", {each.id: 1}, xx=True)
            budget.sweep()
        elif what in {"settle", "unknown", "release"} and number in bounds:
            bill = Bill(amount if what == "settle" else None)
            do(client, *[budget.release(each) if what == "release" else budget.settle(each, bill)] * times)
            above_hold += max(0, amount - bounds.pop(number)) if what == "settle" else 0
            bounds.pop(number, None)
            runs[number] += 1  # each attempt has an id of its own
        elif what == "collect":
            task_id = f"t{number % 3}"
            (cost,) = account.costs([task_id])
            for _ in itertools.repeat(None, times):
                account.collected({task_id: cost.receipt})
            on_rows += cost.nano_usd
        books, calls = account.statement()
        assert books.settled_nano_usd == on_rows + sum(one.charged_nano_usd for one in calls)
        assert books.held_nano_usd == sum(one.bound_nano_usd for one in calls)
        assert books.settled_nano_usd + books.held_nano_usd <= LIMIT + above_hold
        assert books.billed_nano_usd + books.unknown_nano_usd == books.settled_nano_usd


def spend(seed, batch, calls):
    """Hold and settle for a batch from several threads; return what was charged."""
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
        chance, charged = random.Random(f"{seed} {thread}"), 0  # noqa: S311 - amounts, no secrets
        for number in range(calls):
            call = BilledCall(f"{seed}-{thread}:1:control:{number}", "qa", "control", "control", batch)
            bound = chance.randrange(1, 2_000_000)
            if run_together(client, [budget.hold(call, bound)])[0].is_held:
                bill = Bill(chance.randrange(bound + 1))
                charged += run_together(client, [budget.settle(call, bill)])[0].charged_nano_usd
        return charged

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(run, range(4)))


def test_processes_that_spend_at_once_never_exceed_a_batch_s_limit(start_producer, client, account):
    limit = 200_000_000
    account.open(max_usd=to_usd(limit))
    spenders = [start_producer(spend, seed=seed, batch=BATCH, calls=150) for seed in range(2)]
    charged = sum(spender.result(60) for spender in spenders)
    books, calls = account.statement()
    assert limit - 2_000_000 < charged <= limit
    assert (books.settled_nano_usd, books.held_nano_usd) == (charged, 0)
    assert sum(each.charged_nano_usd for each in calls) == charged
    (total,) = [client.hget(key, "settled") for key in client.scan_iter(f"{PREFIX}budget:all:daily:*")]
    assert int(total) == charged
