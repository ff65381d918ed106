"""Money that is held for lines of a lane while their shipment is out."""

from __future__ import annotations

from dspyq.guards.budget import Budget
from dspyq.store.scripts import run_together
from tests.lane.conftest import asleep
from tests.support.budgets import call, settings
from tests.support.frequent_renewals import LEASE_SECONDS
from tests.support.processes import wait_until

LEASES = "dspy:v1:budget:leases"


def state_of(client, call_id):
    return client.hget(f"dspy:v1:budget:hold:{call_id}", "state")


def test_holds_are_renewed_while_their_shipment_is_out_and_a_lapsed_one_is_charged(
    worker, begin_lane, lane_settings, endpoint, client
):
    path = lane_settings({"workers": {"imports": ["tests.support.frequent_renewals"]}})
    worker(path)
    endpoint.batches.script(is_manual=True)
    running = begin_lane("qa", 3, settings=path)
    wait_until(lambda: asleep(client) == 3 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    held = client.zrange(LEASES, 0, -1, withscores=True)
    assert len(held) == 3
    for _ in range(2):
        latest = dict(client.zrange(LEASES, 0, -1, withscores=True))
        wait_until(
            lambda then=latest: all(client.zscore(LEASES, name) > until for name, until in then.items()),
            60,
            "no lease was renewed",
        )
    now, _ = client.time()
    assert all(now < client.zscore(LEASES, name) <= client.time()[0] + LEASE_SECONDS + 1 for name, _ in held)

    budget, other = Budget(client, settings()), call()
    run_together(client, [budget.hold(other, 1_000, lease_seconds=0.0)])
    wait_until(lambda: (budget.sweep(), state_of(client, other.id) == b"unknown")[1], 60, "it is not charged")
    assert {state_of(client, name.decode()) for name, _ in held} == {b"held"}

    endpoint.batches.finish()
    done = running.result(90)
    assert len(done.answers) == 3
    assert (done.settled_nano_usd, done.held_nano_usd) == (endpoint.batches.bill().nano_usd, 0)
