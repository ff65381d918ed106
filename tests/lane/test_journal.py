"""The lane's journal in Redis, of which each change is one script."""

from dspyq.lane.journal import LaneJournal
from dspyq.lane.shipment import Shipment
from dspyq.store.keys import job_key, lane_key
from dspyq.store.scripts import load_script


def test_a_worker_that_stops_ends_no_lease_but_its_own(client):
    first, second = (LaneJournal(client, "unserved", token) for token in ("first", "second"))
    assert first.lease(60.0)
    second.release_lease()
    assert not second.lease(60.0)
    first.release_lease()
    assert second.lease(60.0)


def test_a_job_that_is_gone_leaves_no_record_when_it_rejoins_its_lines(client):
    journal = LaneJournal(client, "unserved", "first")
    journal.rejoin("gone")
    assert not client.exists(job_key("gone"))
    client.hset(job_key("there"), "fence", 1)
    journal.rejoin("there")
    assert client.hget(job_key("there"), "lines") == b"1"


def test_a_cancellation_that_comes_too_late_ends_with_its_shipment(client):
    journal = LaneJournal(client, "unserved", "first")
    assert journal.lease(60.0)
    client.hset(lane_key("unserved", "shipments"), "late", Shipment("late", "closing").to_json())
    assert journal.cancel("late")
    load_script(client, "dspyq.lane", "close")(model="unserved", token="first", name="late")
    assert journal.cancelled() == frozenset()


def test_a_shipment_that_is_closed_cannot_be_cancelled_and_leaves_no_key(client):
    journal = LaneJournal(client, "unserved", "first")
    assert not journal.cancel("gone")
    assert client.keys("dspy:v1:lane:unserved:*") == []
    client.hset(lane_key("unserved", "shipments"), "there", Shipment("there", "submitted").to_json())
    assert journal.cancel("there")
    assert journal.cancelled() == {"there"}
