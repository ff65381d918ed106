"""Calls that a killed worker recorded at the jobs' Redis and did not settle at that of money."""

from dataclasses import replace

import pytest

from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.call_journal import CallJournal
from dspyq.guards.call_records import CallRecord, JobRun
from dspyq.guards.half_settled import settle_again
from dspyq.guards.model import Guards
from tests.support.budgets import PREFIX, Calendar, account, books, do, expire, settings

BOUND, BILL = 60, 25
JOB = JobRun("task", "7", "qa", "a", 2)
ANSWERED = CallRecord("m", "ok", 0.1, 2, 3, BILL / 1e9, key="k:1")
BILLED = {"calls": 1, "prompt_tokens": 2, "completion_tokens": 3, "billed_nano_usd": BILL}
NOTHING = {}


class Killed:
    """A run that holds and records calls and settles none, and the run that follows it.

    Attributes:
        guards: Those of the worker of the run that follows.
        client: That of the Redis of money.
        budget: The budget.
    """

    def __init__(self, jobs, money):
        self.guards = Guards(settings(daily_usd=1), money, lambda: self._journal)
        self.client = money
        self.budget = self.guards.budget = Budget(money, settings(daily_usd=1), Calendar())
        self._jobs = jobs
        self._journal = CallJournal(jobs)
        jobs.hset(f"{PREFIX}job:task", "fence", "7")

    def record(self, record=ANSWERED, attempt_id="6:a:1", job=JOB):
        billed = BilledCall(f"task:{attempt_id}", "qa", attempt_id.split(":")[1], "m", job.batch, job.payer, job.tenant)
        do(self.client, self.budget.hold(billed, BOUND))
        do(self._jobs, self._journal.remember(job, attempt_id, record, b"reply" if record.outcome == "ok" else None))
        return billed

    def run_again(self, job=JOB):
        earlier = self._journal.of("task", job.variant)
        settle_again(self.guards, job, earlier)
        return earlier


@pytest.fixture
def money(fresh_redis_server):
    return fresh_redis_server()


@pytest.fixture
def killed(client, money):
    with money.client(decode_responses=False) as of_money:
        yield Killed(client, of_money)


def test_a_reply_that_was_recorded_and_not_settled_is_settled_by_the_next_run(killed, money):
    killed.record()
    assert killed.run_again().replies == {"k:1": b"reply"}
    assert account(money) == (BILL, 0)
    assert books(money) == BILLED
    assert not money.client().exists(f"{PREFIX}budget:leases")
    killed.run_again()
    assert (account(money), books(money)) == ((BILL, 0), BILLED)


def test_the_bound_of_such_a_reply_whose_hold_ran_out_is_replaced_by_its_bill(killed, money):
    assert expire(killed.client, killed.budget, killed.record()) == 1
    assert books(money)["unknown_nano_usd"] == BOUND
    killed.run_again()
    assert (account(money), books(money)) == ((BILL, 0), BILLED)


def test_a_call_that_was_settled_so_long_ago_that_its_mark_has_ended_is_not_charged_again(killed, money):
    billed = killed.record()
    do(killed.client, killed.budget.settle(billed, Bill(BILL, 2, 3)))
    money.client().delete(f"{PREFIX}budget:hold:{billed.id}")  # as after 15 minutes
    killed.run_again()
    assert (account(money), books(money)) == ((BILL, 0), BILLED)


@pytest.mark.parametrize("has_expired", [False, True])
def test_a_failed_call_that_cost_nothing_frees_its_hold(has_expired, killed, money):
    billed = killed.record(CallRecord("m", "http_500", 0.1, cost_usd=0.0, key="k:1"))
    if has_expired:
        expire(killed.client, killed.budget, billed)
    killed.run_again()
    assert (account(money), books(money)) == ((0, 0), NOTHING)


def test_an_unknown_bill_and_a_call_in_a_lane_are_left_to_their_holds(killed, money):
    killed.record(replace(ANSWERED, is_estimated=True))
    killed.record(attempt_id="lane:a:0123-1-1")
    with money.counted() as usage:
        killed.run_again()
    assert account(money) == (0, 2 * BOUND)
    assert usage.round_trips == 0


def test_calls_of_all_variants_are_settled_in_one_round_trip(killed, money):
    for attempt_id in ("6:a:1", "6:a:2", "6:b:1"):
        killed.record(attempt_id=attempt_id)
    killed.run_again()  # the script is loaded
    for attempt_id in ("8:a:1", "8:a:2", "8:b:1"):
        killed.record(attempt_id=attempt_id)
    with money.counted() as usage:
        assert len(killed.run_again().calls) == 4
    assert account(money) == (6 * BILL, 0)
    assert usage.round_trips == 1
    assert books(money, of="qa.b m ")["billed_nano_usd"] == 2 * BILL


def test_without_records_or_with_one_redis_for_jobs_and_money_nothing_is_asked(killed, money, client, redis_server):
    with money.counted() as usage:
        killed.run_again()
    assert usage.round_trips == 0
    together = Killed(client, client)
    together.record()
    earlier = CallJournal(client).of("task", "a")
    with redis_server.counted() as usage:
        settle_again(together.guards, JOB, earlier)
    assert usage.round_trips == 0


def test_what_the_redis_of_money_misses_is_settled_once_it_answers(killed, money):
    killed.record()
    money.process.stop()
    killed.client.connection_pool.reset()
    killed.client.connection_pool.connection_kwargs["socket_timeout"] = 0.3
    killed.run_again()
    assert killed.guards.outbox.late_count == 1
    money.process.cont()
    killed.guards.catch_up()
    assert (account(money), books(money)) == ((BILL, 0), BILLED)
