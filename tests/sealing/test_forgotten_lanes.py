"""``dspyq forget`` and lanes: a tenant's open calls go at once, and what is at a provider is named with its file."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from dspyq.config.settings import get_settings
from dspyq.guards.budget import Budget
from dspyq.lane.journal import LaneJournal
from dspyq.lane.line import LaneLine
from dspyq.retention.forgetting import forget_before, forget_tenant, forget_unit
from dspyq.store.keys import job_key, lane_key
from dspyq.store.scripts import run_together
from dspyq.store.unit_index import note_units
from tests.lane.conftest import LANES
from tests.sealing.test_rotation import NO_MEMORY
from tests.support.configuration import merged
from tests.support.processes import wait_until

HOLD = "dspy:v1:budget:hold:"


def id_of(number):
    return str(number) * 32 + "-1-1-abc"


def deposit(client, number, task, tenant=""):
    """A call of a task in a lane that no worker runs, with the money that is held for it."""
    line = LaneLine(task, "qa", "control", "qa.control", 1_000, 1.0, "batch", tenant=tenant)
    client.hset("dspy:v1:budget:batch:batch", "opened", 1)
    billed = line.billed("unserved", id_of(number))
    (verdict,) = run_together(client, [Budget(client, get_settings()).hold(billed, 1_000, lease_seconds=60.0)])
    assert verdict.verdict == "held", verdict
    client.hset(job_key(task), mapping={"fence": 1, "tenant": tenant})
    journal = LaneJournal(client, "unserved", "first")
    assert journal.deposit(id_of(number), line, b"body") == "there"
    return journal


def test_open_calls_of_a_tenant_go_at_once_with_their_jobs_and_holds(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    deposit(client, 1, "one", "acme")
    deposit(client, 2, "one", "acme")
    deposit(client, 3, "two", "other")
    told = forget_tenant("acme")
    assert (told.calls, client.hkeys(lane_key("unserved", "lines"))) == (2, [id_of(3).encode()])
    assert client.hkeys(lane_key("unserved", "bodies")) == [id_of(3).encode()]
    assert [client.exists(job_key(task)) for task in ("one", "two")] == [0, 1]
    (held,) = client.keys(f"{HOLD}*")
    assert held.startswith(f"{HOLD}two:".encode())
    assert not [each for each in told.not_reached if "lanes" in each or "unfinished" in each]


def test_a_call_that_was_shipped_stays_with_its_hold_and_its_shipment_is_named(configure, sealed, client):
    configure(sealed(True, {**NO_MEMORY, "encryption": {"index_units": True}}))
    journal = deposit(client, 1, "one", "acme")
    assert journal.lease(60.0)
    journal.fill("dspyq-1", 1, 10_000, 0)
    (filled,) = journal.shipments()
    deposit(client, 2, "one", "acme")
    assert not named(forget_before(2.0))  # nothing was sent yet
    journal.save(filled.at("submitted", file_id="file-7", batch_id="batch_8", uploads=1))
    told = forget_tenant("acme")
    assert (told.calls, client.hkeys(lane_key("unserved", "lines"))) == (1, [id_of(1).encode()])
    assert len(client.keys(f"{HOLD}*")) == 1
    note_units([(SimpleNamespace(unit="ann", input_hash="ab" * 32), "one")])
    for removal in (told, forget_before(2.0), forget_unit("ann")):
        (sentence,) = named(removal)
        assert "1 calls in shipment dspyq-1 of unserved, file dspyq-1.jsonl (file-7), batch batch_8;" in sentence
        assert "dspyq lane cancel dspyq-1" in sentence
    assert not named(forget_tenant("other"))
    run_together(client, [journal.land(id_of(1), ())])
    journal.save(filled.at("closing", batch_id="batch_8", uploads=1))
    (sentence,) = named(forget_tenant("other"))
    assert "perhaps file dspyq-1.jsonl, batch batch_8, whose calls have landed" in sentence


def named(removal):
    """The statements of a removal on shipments."""
    return [each for each in removal.not_reached if each.startswith("at the provider")]


@pytest.mark.journey
def test_a_batch_of_a_forgotten_tenant_ends_without_a_call(
    configure, sealed, worker, dspyq, tmp_path, client, endpoint
):
    path = sealed(True, merged(LANES, {"models": {"control": {"batch_linger_seconds": 600}}}))
    configure(path)
    worker(path)
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"question": f"{number}"}) + "\n" for number in range(2)))
    command = ("batch", "run", str(source), "--program", "qa", "--output", str(out), "--lane", "provider")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(dspyq, *command, "--tenant", "acme", settings=path, ok=None)
        wait_until(lambda: client.hlen(lane_key("control", "bodies")) == 2, 60, "two calls in the lane")
        told = forget_tenant("acme")
        assert (told.calls, client.exists(lane_key("control", "bodies"))) == (2, 0)
        running.result(90)
    assert [json.loads(line)["outputs"] for line in out.read_text().splitlines()] == [None, None]
    assert (endpoint.batches.counts().batches, endpoint.calls()) == (0, 0)
    assert not client.keys(f"{HOLD}*")
