"""Guards with damaged keys in Redis."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from dspyq.guards.billing import Bill
from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.budget import Budget
from dspyq.guards.provider_gate import GatePolicy, Refused
from dspyq.guards.rate_limit import RateLimiter, RateLimitPolicy
from dspyq.store.scripts import run_together
from tests.properties.profiles import examples
from tests.support.budgets import NANO, PREFIX, Calendar, call, do, settings
from tests.support.redis_server import RedisServer

BREAKER = (
    "state epoch failed failures successes until period probe probe_until openings moved_by moved_from row questions "
    "round outages"
)
RATE = (
    "requests_at tokens_at gate_until gate_by gate_reason retry_after account retry_after_row account_row refused "
    "refused_row"
)
ODD = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"nan", b"inf", b"-inf", b"1e300", b"-1", b"9" * 40, b"\xff\xfe", b"0x10", b"half-closed", b""]),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
)
POLICY = BreakerPolicy(
    failure_threshold=2,
    success_threshold=1,
    reset_timeout_seconds=5,
    max_reset_timeout_seconds=5,
    probe_lease_seconds=5,
)
RATES = RateLimitPolicy(
    requests_per_second=1000,
    burst_requests=1000,
    tokens_per_minute=10**9,
    longest_wait_seconds=2,
    gate=GatePolicy(max_retry_after_seconds=3, account_pause_seconds=1, max_account_pause_seconds=2),
)
odd_state = profile(
    max_examples=examples(30, 80),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def fields(names: str) -> st.SearchStrategy[dict[str, bytes] | None]:
    """Some odd fields of a hash; None for a key that is none."""
    return st.none() | st.dictionaries(st.sampled_from(names.split()), ODD, min_size=1, max_size=3)


def damage(client: redis.Redis, key: str, odd: dict[Any, bytes] | None) -> None:
    if odd is None:
        client.set(key, b"\xff")
    else:
        client.hset(key, mapping=odd)


@pytest.mark.property
@odd_state
@given(odd=fields(BREAKER), was_open=st.booleans())
def test_a_damaged_breaker_can_be_read_and_begins_anew_where_it_cannot_be_used(
    redis_server: RedisServer, odd: dict[str, bytes] | None, *, was_open: bool
) -> None:
    with redis_server.client(decode_responses=False) as client:
        client.flushdb()
        breaker = FleetBreaker(client, "m", POLICY)
        if was_open:
            breaker.command("open")
        damage(client, f"{PREFIX}breaker:m", odd)
        answer = breaker.report("admit", "one", 0)
        assert answer.state.name in {"closed", "open", "half-open"}
        assert answer.state.outage_rows is not None  # they are numbers
        breaker.command("reset")
        epoch = breaker.report("admit", "two", 0).state.epoch
        assert [breaker.report("failed", id_, epoch).state.name for id_ in ("a", "b")] == ["closed", "open"]


def test_a_breaker_that_begins_anew_is_one_warning(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server.client(decode_responses=False) as client:
        breaker = FleetBreaker(client, "m", POLICY)
        breaker.command("open")
        client.hset(f"{PREFIX}breaker:m", "epoch", b"\xff")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            states = [run_together(client, [breaker.read()])[0].name for _ in range(3)]
    assert states == ["closed"] * 3
    assert [record.getMessage() for record in caplog.records] == ["breaker_closed model=m before=damaged"]


@pytest.mark.property
@odd_state
@given(odd=fields(BREAKER), was_open=st.booleans())
def test_a_look_finds_what_a_worker_reads_and_changes_nothing(
    redis_server: RedisServer, odd: dict[str, bytes] | None, *, was_open: bool
) -> None:
    with redis_server.client(decode_responses=False) as client:
        client.flushdb()
        breaker = FleetBreaker(client, "m", POLICY)
        if was_open:
            breaker.command("open")
        damage(client, f"{PREFIX}breaker:m", odd)
        before = client.dump(f"{PREFIX}breaker:m")
        (seen,) = run_together(client, [breaker.look()])
        assert client.dump(f"{PREFIX}breaker:m") == before
        (read,) = run_together(client, [breaker.read()])
        assert (seen.name, seen.failures, seen.is_forced, seen.openings, seen.outage_rows) == (
            read.name, read.failures, read.is_forced, read.openings, read.outage_rows
        )  # fmt: skip


@pytest.mark.property
@odd_state
@given(odd=fields(RATE))
def test_a_damaged_rate_begins_anew_and_keeps_no_call_waiting(
    redis_server: RedisServer, odd: dict[str, bytes] | None
) -> None:
    with redis_server.client(decode_responses=False) as client:
        client.flushdb()
        limiter = RateLimiter(client, "m", RATES)
        damage(client, f"{PREFIX}rate:m", odd)
        (first,) = run_together(client, [limiter.reserve(10)])
        assert 0 <= first.wait_seconds < 31 * 86400
        limiter.gate.reset()
        assert limiter.gate.read().closed_seconds == 0
        assert 0 < limiter.gate.close("retry_after", 0.5, Refused("q")).seconds <= 3
        limiter.gate.reset()
        run_together(client, [step for step in (limiter.correct(10, 5), limiter.gate.succeeded()) if step])
        client.delete(f"{PREFIX}rate:m")
        (again,) = run_together(client, [limiter.reserve(10)])
        assert again.is_reserved


def test_a_rate_that_begins_anew_is_one_warning(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server.client(decode_responses=False) as client:
        limiter = RateLimiter(client, "m", RATES)
        client.set(f"{PREFIX}rate:m", "x")
        with caplog.at_level(logging.WARNING):
            reservations = [run_together(client, [limiter.reserve(1)])[0] for _ in range(2)]
    assert all(reservation.is_reserved for reservation in reservations)
    assert [record.msg.name for record in caplog.records] == ["rate_limit_begun_anew"]


BUDGET_KEYS = [
    "budget:all:daily:day1", "budget:program:qa:monthly:month1", "budget-limits", "budget-statistics", "costs:day1",
    "budget:hold:task:1:1", "budget:leases",
]  # fmt: skip
BUDGET_FIELDS = [
    "settled", "held", "warned", "state", "bound", "day", "all daily", "warnings", "qa.a m calls",
    "qa.a m billed_nano_usd",
]  # fmt: skip


@pytest.mark.property
@odd_state
@given(
    key=st.sampled_from(BUDGET_KEYS),
    odd=st.none() | st.dictionaries(st.sampled_from(BUDGET_FIELDS), ODD, min_size=1, max_size=3),
    is_damaged_first=st.booleans(),
    bill=st.none() | st.integers(0, 50),
)
def test_a_damaged_budget_refuses_holds_or_counts_right_and_settles_each_call_once(
    redis_server: RedisServer, key: str, odd: dict[str, bytes] | None, *, is_damaged_first: bool, bill: int | None
) -> None:
    if key == "budget:leases":
        odd = None  # which is no hash
    with redis_server.client(decode_responses=False) as client:
        client.flushdb()
        limited = settings(1000 / NANO, 1000 / NANO, program={"daily_usd": 1000 / NANO, "monthly_usd": 1000 / NANO})
        budget = Budget(client, limited, Calendar())
        do(client, budget.hold(call(9), 50))
        if is_damaged_first:
            damage(client, f"{PREFIX}{key}", odd) if odd or key != "budget:leases" else client.set(f"{PREFIX}{key}", 1)
            try:
                is_held = do(client, budget.hold(call(1), 50)).is_held
            except redis.ResponseError:
                is_held = False
        else:
            is_held = do(client, budget.hold(call(1), 50)).is_held
            damage(client, f"{PREFIX}{key}", odd)
        for _ in range(3):  # as an outbox does that Redis refused
            try:
                do(client, budget.settle(call(1), Bill(bill, 1, 1)) if is_held else budget.release(call(1)))
            except redis.ResponseError:
                continue
        if not key.endswith((":day1", ":month1")):
            account = client.hgetall(f"{PREFIX}budget:all:daily:day1")
            assert int(account.get(b"held", 0)) in {50, 100}  # the other's, and where its hold was damaged its own
            assert int(account.get(b"settled", 0)) <= 50
        client.delete(f"{PREFIX}{key}")
        budget.sweep()
        assert do(client, budget.hold(call(2), 50)).is_held
        assert do(client, budget.settle(call(2), Bill(7, 1, 1))).charged_nano_usd == 7


@pytest.mark.parametrize("amount", [b"nan", b"-inf", b"lots", b"\xff", b"1e300"])
@pytest.mark.parametrize("place", ["budget-limits", "budget:all:daily:day1"])
def test_no_money_is_held_by_an_amount_that_is_none(redis_server: RedisServer, place: str, amount: bytes) -> None:
    with redis_server.client(decode_responses=False) as client:
        budget = Budget(client, settings(1000 / NANO), Calendar())
        client.hset(f"{PREFIX}{place}", "all daily" if place == "budget-limits" else "settled", amount)
        with pytest.raises(redis.ResponseError, match=f"{place} holds no amounts"):
            do(client, budget.hold(call(1), 50))
        client.delete(f"{PREFIX}{place}")
        assert do(client, budget.hold(call(1), 50)).is_held
