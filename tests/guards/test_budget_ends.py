"""Every key that the budget's scripts write ends by itself, also where it was gone when they wrote."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dspyq.batch.account import BatchAccount
from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget
from dspyq.guards.limits import Limits
from tests.client.test_data_model import is_documented
from tests.properties.profiles import examples
from tests.support.budgets import PREFIX, Calendar, call, do, settings

BATCH = "00ff00ff00ff00ff"
#: They stay, says docs/data-model.md: one each, whose members or fields have an end or a bound.
LASTING = {f"{PREFIX}{name}" for name in ("budget:leases", "budget-statistics", "budget-limits")}
CALLS = [call(1), call(2), call(3, batch=BATCH), call(4, batch=BATCH), call(5)._replace(payer="shadow")]
STATES = ["unheld", "held", "expired", "settled", "released"]
ACTIONS = ["hold", "settle", "settle unknown", "release", "expire", "reset"]


class World:
    """A budget in a real Redis."""

    def __init__(self, server):
        self._text = server.client()
        self._client = server.client(decode_responses=False)
        made = settings(1, 10)
        self._budget = Budget(self._client, made, Calendar())
        self._limits = Limits(self._client, made, Calendar())

    def open_batch(self):
        BatchAccount(self._client, BATCH).open(max_usd=None, budget_share=None, rate_share=None)

    def apply(self, action, subject, amount):
        budget = self._budget
        match action:
            case "hold":
                do(self._client, budget.hold(subject, amount))
            case "settle" | "settle unknown":
                do(self._client, budget.settle(subject, Bill(amount if action == "settle" else None, 1, 1)))
            case "release":
                do(self._client, budget.release(subject))
            case "expire":
                self._client.zadd(f"{PREFIX}budget:leases", {subject.id: 1}, xx=True)
                budget.sweep()
            case "reset":
                self._limits.reset("all", "daily")

    def bring_to(self, state, subject, amount):
        steps = {"held": ["hold"], "expired": ["hold", "expire"], "settled": ["hold", "settle"]}
        for action in steps.get(state, ["hold", "release"] if state == "released" else []):
            self.apply(action, subject, amount)

    def names(self):
        return sorted(self._text.keys("*"))

    def delete(self, *keys):
        if keys:
            self._text.delete(*keys)

    def endless(self):
        return [key for key in self.names() if self._text.ttl(key) == -1 and key not in LASTING]

    def close(self):
        self._text.close()
        self._client.close()


@pytest.fixture
def world(redis_server):
    made = World(redis_server)
    yield made
    made.close()


def test_what_the_call_of_a_killed_worker_holds_ends_by_itself(world):
    world.apply("hold", call(1), 20)
    assert [key for key in world.names() if "budget:hold:" in key]
    assert world.endless() == []


@pytest.mark.parametrize("amount", [0, 20])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("subject", [call(1), call(1, batch=BATCH)], ids=["a job's", "a batch's"])
def test_a_script_revives_no_key_without_an_end(world, subject, state, action, amount):
    world.open_batch()
    world.bring_to(state, subject, amount)
    keys = world.names()
    for gone in (*([key] for key in keys if "budget:hold:" not in key), [key for key in keys if "hold:" not in key]):
        world.delete(*world.names())
        world.open_batch()
        world.bring_to(state, subject, amount)
        world.delete(*gone)
        if action != "hold" or state not in {"settled", "released"}:  # an id that was settled is refused
            world.apply(action, subject, amount)
        assert world.endless() == []
        assert all(is_documented(key.removeprefix(PREFIX)) for key in world.names())


OPERATIONS = st.tuples(st.sampled_from(ACTIONS), st.sampled_from(CALLS), st.integers(0, 40))


@pytest.mark.property
@given(st.lists(OPERATIONS | st.floats(0, 1), min_size=5, max_size=25))
@hypothesis_settings(
    max_examples=examples(30, 80),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_key_is_without_an_end_whatever_was_deleted_in_between(world, redis_server, operations):
    redis_server.flush()
    world.open_batch()
    settled = set()
    for operation in operations:
        if isinstance(operation, float):
            keys = [key for key in world.names() if "hold:" not in key]
            world.delete(*keys[int(operation * len(keys)) :][:1])
            continue
        action, subject, amount = operation
        settled |= {subject.id} if action in {"settle", "settle unknown", "release"} else set()
        if action != "hold" or subject.id not in settled:
            world.apply(action, subject, amount)
        assert world.endless() == []
