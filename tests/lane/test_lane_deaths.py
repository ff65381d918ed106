"""Workers that die at a step of a shipment: another one goes on, and no call is submitted or charged twice."""

from __future__ import annotations

import pytest

from tests.support.lane_points import KEY, POINTS
from tests.support.processes import wait_until

#: One within each kind of step: what the provider did, and what Redis did.
SHORT = ("after-create", "mid-land")


def die_at(point, worker, lane_settings, run_lane, client, endpoint):
    settings = lane_settings({"workers": {"imports": ["tests.support.lane_failpoints"]}})
    workers = [worker(settings, waits=False) for _ in range(2)]
    for each in workers:
        each.ready()
    client.set(KEY, point)
    done = run_lane("twice", 12, settings=settings)
    assert client.get(KEY) is None, "no worker reached it"
    assert sum(each.is_running for each in workers) == 1
    counts, bill = endpoint.batches.counts(), endpoint.batches.bill()
    assert len(done.answers) == 12
    assert (counts.double_names, counts.billed_twice, counts.lines_billed) == ([], [], 24)
    assert (done.settled_nano_usd, done.held_nano_usd, endpoint.calls()) == (bill.nano_usd, 0, 0)
    wait_until(lambda: client.keys("dspy:v1:lane:*:shipments") == [], 60, "its shipments are not closed")
    assert endpoint.batches.files() == []


@pytest.mark.journey
@pytest.mark.parametrize("point", SHORT)
def test_a_worker_that_dies_at_a_step_of_a_shipment_costs_nothing_twice(
    point, worker, lane_settings, run_lane, client, endpoint
):
    die_at(point, worker, lane_settings, run_lane, client, endpoint)


@pytest.mark.long
@pytest.mark.parametrize("point", [point for point in POINTS if point not in SHORT])
def test_a_worker_that_dies_at_any_other_step_costs_nothing_twice(
    point, worker, lane_settings, run_lane, client, endpoint
):
    die_at(point, worker, lane_settings, run_lane, client, endpoint)
