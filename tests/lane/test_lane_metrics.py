"""Metrics of lanes: every worker shows what lanes hold, whichever of them runs them."""

import json

import pytest

from dspyq.core.tolerated import tolerated
from dspyq.lane.shipment import Shipment
from dspyq.worker.monitoring.fleet import Fleet, FleetCollector
from tests.lane.conftest import asleep
from tests.support.processes import wait_until

LANE = "dspy:v1:lane:control:"


def samples(settings):
    return {
        (sample.name.removeprefix("dspy_lane_"), *sample.labels.values()): sample.value
        for metric in FleetCollector(settings, Fleet(settings, {})).collect()
        for sample in metric.samples
    }


@pytest.mark.usefixtures("lane_worker")
def test_a_process_that_runs_no_lane_shows_what_it_holds(configure, begin_lane, lane_settings, endpoint, client):
    settings = configure(lane_settings())
    endpoint.batches.script(is_manual=True)
    running = begin_lane("qa", 5)
    wait_until(lambda: asleep(client) == 5 and samples(settings)["shipments", "control", "submitted"], 60, "no batch")
    (account,) = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4]
    shown = samples(settings)
    assert (shown["lines", "control", "open"], shown["lines", "control", "shipped"]) == (0, 5)
    assert round(shown["held_usd", "control"] * 1e9) == int(client.hget(account, "held")) > 0
    assert shown["oldest_shipment_seconds", "control"] > 0
    assert (shown["unattended", "control"], shown["repeated_failures", "control"]) == (0, 0)
    endpoint.batches.finish()
    running.result(60)
    wait_until(lambda: client.keys(LANE + "shipments") == [], 60, "its shipment is not closed")
    left = [name for name, value in samples(settings).items() if value and not name[0].startswith("dspy_")]
    assert left == []
    assert client.exists(LANE + "held") == 0


def test_a_lane_that_no_worker_runs_is_shown_and_a_damaged_shipment_hides_no_other(configure, lane_settings, client):
    settings = configure(lane_settings())
    assert samples(settings)["unattended", "control"] == 0
    client.sadd("dspy:v1:lanes", "control", "removed")
    client.hset(LANE + "lines", mapping={"a": "{}", "b": "{}"})
    client.hset(LANE + "shipments", "a", Shipment("a", failures=3).to_json())
    client.hset(LANE + "shipments", "b", b"\xff")
    faults = tolerated("snapshot")
    shown = samples(settings)
    assert (shown["unattended", "control"], shown["unattended", "removed"]) == (1, 1)
    assert (shown["lines", "control", "shipped"], shown["repeated_failures", "control"]) == (2, 3)
    assert tolerated("snapshot") > faults
    client.set(LANE + "runner", "a worker")
    assert samples(settings)["unattended", "control"] == 0


def test_each_end_of_a_batch_is_shown_from_zero_on_so_that_the_first_one_is_seen(configured):
    shown = samples(configured)
    states = ("finished", "limited", "stopped", "cancelled")
    assert {state: shown["dspy_batches_ended_total", "qa", state] for state in states} == dict.fromkeys(states, 0)


@pytest.mark.journey
@pytest.mark.usefixtures("lane_worker")
def test_failures_of_a_step_in_a_row_are_kept_with_its_shipment(begin_lane, endpoint, client):
    endpoint.batches.script(times=1, refused_results=2)
    running = begin_lane("qa", 3)

    def failures():
        return [json.loads(text)["failures"] for text in client.hvals(LANE + "shipments")]

    wait_until(lambda: failures() == [2], 60, "no step failed twice")
    assert len(running.result(60).answers) == 3
    past = [json.loads(text) for text in client.lrange(LANE + "past", 0, -1)]
    assert [one["failures"] for one in past] == [0]
