"""Any interleaving of holds, settlements, expiries, releases and period changes, against a model of one page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.limits import Limits
from tests.properties.profiles import examples
from tests.support.budgets import PREFIX, Calendar, call, do, settings

#: Of no tenant, and of two.
TENANTS = ("", "t1", "t2")
CALLS = [call(number, variant="ab"[number % 2], tenant=TENANTS[number % 3]) for number in range(6)]
AMOUNTS = st.integers(0, 60)
#: What is done with a call, and how often at once: as a lost connection does it.
CALL_OPERATIONS = st.tuples(
    st.sampled_from(["hold", "hold", "settle", "unknown", "release", "expire"]),
    st.sampled_from(CALLS),
    AMOUNTS,
    st.sampled_from([1, 1, 1, 2]),
)
OTHER_OPERATIONS = st.tuples(
    st.sampled_from(["next day", "next month", "limit", "reset"]),
    st.sampled_from(["all", "program:qa", "variant:qa.a", "tenant:t1"]),  # variants have no limit at first
    AMOUNTS,
    st.just(1),
)
OPERATIONS = st.one_of(CALL_OPERATIONS, CALL_OPERATIONS, CALL_OPERATIONS, OTHER_OPERATIONS)


@dataclass
class Held:
    """A call of the model: ``held``, ``unknown`` after its lease ran out, or ``settled``."""

    state: str
    bound: int
    accounts: list[tuple[str, str, str]]
    held_in: list[tuple[str, str, str]]
    day: str
    tenant: str = ""


@dataclass
class Model:
    """The promises of the budget, in plain Python."""

    limits: dict[tuple[str, str], int]
    day: int = 1
    month: int = 1
    settled: Counter = field(default_factory=Counter)
    held: Counter = field(default_factory=Counter)
    books: Counter = field(default_factory=Counter)
    calls: dict[str, Held] = field(default_factory=dict)

    def accounts(self, of: BilledCall) -> list[tuple[str, str, str]]:
        scopes = ["all", f"program:{of.program}", f"variant:{of.program}.{of.variant}"]
        if of.tenant:
            scopes.append(f"tenant:{of.tenant}")
        labels = {"daily": f"day{self.day}", "monthly": f"month{self.month}"}
        return [(scope, period, label) for period, label in labels.items() for scope in scopes]

    def verdict(self, of: BilledCall, bound: int) -> str:
        if of.id in self.calls:
            return "held"
        limited = [(key, self.limits[key[:2]]) for key in self.accounts(of) if key[:2] in self.limits]
        if any(bound > limit for _, limit in limited):
            return "never"
        exhausted = {key[0] for key, limit in limited if self.settled[key] + bound > limit}
        busy = {key[0] for key, limit in limited if self.settled[key] + self.held[key] + bound > limit}
        own = f"tenant:{of.tenant}"
        if exhausted:
            return "tenant_limit" if exhausted == {own} else "exhausted"
        if busy:
            return "tenant_busy" if own in busy else "busy"
        return "held"

    def hold(self, of: BilledCall, bound: int) -> str:
        verdict = self.verdict(of, bound)
        if verdict == "held" and of.id not in self.calls:
            accounts = self.accounts(of)
            limited = [key for key in accounts if key[:2] in self.limits]
            self.calls[of.id] = Held("held", bound, accounts, limited, f"day{self.day}", of.tenant)
            self._move(self.calls[of.id], 0, bound)
        return verdict

    def settle(self, of: BilledCall, bill: int | None) -> str:
        held = self.calls.get(of.id)
        if held and held.state == "settled":
            return "settled"
        if not held:
            held = self.calls[of.id] = Held("nothing", 0, self.accounts(of), [], f"day{self.day}", of.tenant)
        found, held.state = held.state, "settled"
        amount = held.bound if bill is None else bill
        if found == "unknown":
            self._move(held, amount - held.bound, 0)
        else:
            self._move(held, amount, -held.bound)
            self._book(held, calls=1, unknown_calls=1, unknown_nano_usd=held.bound)
        if bill is not None:
            self._book(held, billed_nano_usd=bill, unknown_calls=-1, unknown_nano_usd=-held.bound)
        return {"unknown": "expired"}.get(found, found)

    def release(self, of: BilledCall) -> None:
        held = self.calls.get(of.id)
        if held is None:  # what holds it may still come
            self.calls[of.id] = Held("settled", 0, [], [], "")
        elif held.state != "settled":
            self.expire(of)
            self._move(held, -held.bound, 0)
            self._book(held, calls=-1, unknown_calls=-1, unknown_nano_usd=-held.bound)
            del self.calls[of.id]

    def expire(self, of: BilledCall) -> None:
        held = self.calls.get(of.id)
        if held and held.state == "held":
            held.state = "unknown"
            self._move(held, held.bound, -held.bound)
            self._book(held, calls=1, unknown_calls=1, unknown_nano_usd=held.bound)

    def _move(self, held: Held, settled: int, reserved: int) -> None:
        for key in held.accounts:
            self.settled[key] = max(0, self.settled[key] + settled)
        for key in held.held_in:
            self.held[key] += reserved

    def _book(self, held: Held, **counters: int) -> None:
        for name, amount in counters.items():
            self.books["", held.day, name] += amount
            if held.tenant:
                self.books[held.tenant, held.day, name] += amount


class World:
    """The real side, which does as the model does."""

    def __init__(self, server) -> None:
        self._server = server
        self._text = server.client()
        self._client = server.client(decode_responses=False)
        self.calendar = Calendar()
        made = settings(100 / 10**9, 250 / 10**9, program={"daily_usd": 80 / 10**9}, tenants={"daily_usd": 60 / 10**9})
        self.budget = Budget(self._client, made, self.calendar)
        self.limits = Limits(self._client, made, self.calendar)

    def do(self, step):
        return do(self._client, step)

    def expire(self, of):
        leases = f"{PREFIX}budget:{'tenant-' if of.tenant else ''}leases"
        if self._text.zscore(leases, of.id) is not None:
            self._text.zadd(leases, {of.id: 1})
        self.budget.sweep()

    def account(self, key):
        found = self._text.hmget(f"{PREFIX}budget:{':'.join(key)}", "settled", "held")
        return tuple(int(amount or 0) for amount in found)

    def books(self):
        found = Counter()
        for key in self._server.keys(f"{PREFIX}costs:*"):
            for name, amount in self._text.hgetall(key).items():
                found["", key.rpartition(":")[2], name.split()[2]] += int(amount)
        for key in self._server.keys(f"{PREFIX}tenant-costs:*"):
            for name, amount in self._text.hgetall(key).items():
                day, *_, counter = name.split()
                found[key.split(":")[-2], day, counter] += int(amount)
        return found

    def leases(self):
        names = ("leases", "tenant-leases")
        return {each for name in names for each in self._text.zrange(f"{PREFIX}budget:{name}", 0, -1)}

    def close(self):
        self._text.close()
        self._client.close()


def apply_to_call(model, world, operation, subject, amount):
    """Do something with a call on both sides, and compare what they say."""
    known = model.calls.get(subject.id)
    match operation:
        case "hold" if known is None or known.state != "settled":  # an id that was settled is refused: another test
            verdict = world.do(world.budget.hold(subject, amount)).verdict
            assert verdict == model.hold(subject, amount)
            if verdict == "held" and known is None:
                for key in model.accounts(subject):
                    granted = model.settled[key] + model.held[key]
                    assert granted <= model.limits.get(key[:2], granted)
        case "settle" | "unknown":
            bill = amount if operation == "settle" else None
            assert world.do(world.budget.settle(subject, Bill(bill))).found == model.settle(subject, bill)
        case "release":
            world.do(world.budget.release(subject))
            model.release(subject)
        case "expire":
            world.expire(subject)
            model.expire(subject)


def apply_to_periods(model, world, operation, scope, amount):
    """Let time pass or an operator act, on both sides."""
    match operation:
        case "next day" | "next month":
            model.day += 1
            model.month += operation == "next month"
            world.calendar.set(f"day{model.day}", f"month{model.month}")
        case "limit":
            world.limits.override(scope, "daily", 2 * amount)
            model.limits[scope, "daily"] = 2 * amount
        case "reset":
            world.limits.reset(scope, "daily")
            model.settled[scope, "daily", f"day{model.day}"] = 0


@pytest.fixture
def world(redis_server):
    made = World(redis_server)
    yield made
    made.close()


@pytest.mark.property
@given(st.lists(OPERATIONS, min_size=20, max_size=50))
@hypothesis_settings(
    max_examples=examples(40, 120),
    derandomize=True,
    # The fixture is emptied for each example, and made once: its round trips are what takes time.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_interleaving_does_what_the_model_does(world, redis_server, operations):
    redis_server.flush()
    world.calendar.set("day1", "month1")
    of_tenants = {(f"tenant:{name}", "daily"): 60 for name in TENANTS if name}
    model = Model({("all", "daily"): 100, ("all", "monthly"): 250, ("program:qa", "daily"): 80, **of_tenants})
    for operation, subject, amount, times in operations:
        apply = apply_to_call if isinstance(subject, BilledCall) else apply_to_periods
        for _ in range(times):
            apply(model, world, operation, subject, amount)
    assert {key: world.account(key) for key in model.settled} == {
        key: (model.settled[key], model.held[key]) for key in model.settled
    }
    assert +world.books() == +model.books
    assert world.leases() == {name for name, held in model.calls.items() if held.state == "held"}
