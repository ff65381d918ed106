"""Content that a lane keeps in Redis is sealed, counted by its key, and stated by ``dspyq forget``."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspyq.cache.judgements import Judgement, keep_judgement, read_judgements
from dspyq.guards.call_journal import CallJournal
from dspyq.guards.call_records import CallRecord, JobRun
from dspyq.lane.journal import LaneJournal
from dspyq.lane.line import LaneLine
from dspyq.retention.forgetting import forget_before, forget_tenant
from dspyq.retention.removal import Removal
from dspyq.store import content
from dspyq.store.envelope_counts import count_envelopes
from dspyq.store.keys import job_key, lane_key
from tests.lane.conftest import LANES
from tests.lane.test_lane_protocols import document_of
from tests.sealing.canary import CANARY, legible_commands, legible_keys
from tests.sealing.test_rotation import NO_MEMORY
from tests.support.configuration import merged
from tests.support.processes import wait_until

ID = "0" * 32 + "-1-1-abc"
OTHER = "1" * 32 + "-1-1-abd"


def deposit(client, custom_id, task, tenant=""):
    """A lane with a request of a task, open since 1970."""
    journal = LaneJournal(client, "unserved", "first")
    client.hset(job_key(task), "fence", 1)
    line = LaneLine(task, "qa", "control", "qa.control", 1, 1.0, "batch", tenant=tenant)
    assert journal.deposit(custom_id, line, CANARY.encode()) == "there"
    return journal


def ship(journal):
    assert journal.lease(60.0)
    return journal.fill("one", 10, 10_000, 0)


def test_requests_failures_and_salvaged_replies_of_lanes_and_comments_are_sealed_and_counted(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    journal = deposit(client, ID, "task")
    key = lane_key("unserved", "salvaged")
    client.hset(key, "digest:1", content.encode(content.Kind.REPLY, "digest:1", CANARY.encode()))
    keep_judgement("call", Judgement("thumbs", 1.0, CANARY), 60)
    job = JobRun("task", "", "qa", "control")
    record = CallRecord("control", "http_400", 1.0, key="digest:1")
    kept = CallJournal.fields_of(job, "lane:control:1", record, failure=CANARY.encode())
    client.hset("dspy:v1:calls:task", items=kept)
    assert legible_keys(client) == set()
    (number,) = count_envelopes([client], str).values()
    assert number == 4
    assert journal.look(job, OTHER, "digest:1").salvaged == CANARY.encode()
    assert read_judgements("call")[0].comment == CANARY
    client.hset(key, "digest:1", b"forged")
    assert journal.look(job, OTHER, "digest:1").salvaged is None
    client.hset(lane_key("unserved", "bodies"), ID, b"forged")
    assert count_envelopes([client], str)["plain"] == 2


def test_a_request_that_cannot_be_read_is_named_and_one_of_an_unknown_key_waits(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    journal = deposit(client, ID, "task")
    deposit(client, OTHER, "other")
    bodies = lane_key("unserved", "bodies")
    of_another_key = content.encode(content.Kind.REQUEST, OTHER, b"text").replace(b"dq1", b"dq1" + b"z" * 8, 1)
    client.hset(bodies, ID, b"forged")
    client.hset(bodies, OTHER, of_another_key)
    ship(journal)
    assert journal.unreadable_lines("one") == [ID]


def test_a_tenants_comments_go_and_older_calls_in_lanes_are_stated(configure, sealed, client):
    configure(sealed(True, NO_MEMORY))
    journal = deposit(client, ID, "task", tenant="acme")
    deposit(client, OTHER, "other", tenant="other")
    keep_judgement("call", Judgement("thumbs", 1.0, "words"), 60, "acme")
    keep_judgement("call", Judgement("stars", 2.0, "words"), 60, "other")
    removal = forget_tenant("acme")
    assert removal.comments == 1
    assert sorted((each.name, each.comment) for each in read_judgements("call")) == [
        ("stars", "words"),
        ("thumbs", None),
    ]
    assert (removal.calls, in_lanes(removal)) == (1, [])
    ship(journal)
    assert in_lanes(forget_before(2.0)) == ["calls in lanes: 1, of which 1 left"]
    assert in_lanes(forget_before(0.5)) == []


def in_lanes(removal: Removal) -> list[str]:
    """Return the statements of a removal on lanes, up to their numbers."""
    return [each.partition(" for the provider")[0] for each in removal.not_reached if each.startswith("calls in lanes")]


@pytest.mark.long
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "control"])
def test_a_lane_shows_no_canary_and_asks_a_request_again_that_was_altered(
    is_sealed, worker, dspyq, sealed, settings_file, redis_server, tmp_path, client, endpoint
):
    lanes = merged(LANES, {"models": {"control": {"batch_linger_seconds": 60}}})
    path = sealed(True, lanes) if is_sealed else settings_file(lanes)
    worker(path)
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"question": f"{CANARY} {number}"}) + "\n" for number in range(3)))
    command = ("batch", "run", str(source), "--program", "qa", "--output", str(out), "--lane", "provider")
    endpoint.batches.script(times=1, failed_share=0.4, failed_status=400, failed_code="content_policy_violation")
    bodies = lane_key("control", "bodies")
    with redis_server.monitored() as commands, ThreadPoolExecutor() as pool:
        running = pool.submit(dspyq, *command, settings=path, ok=None)
        wait_until(lambda: client.hlen(bodies) == 3, 60, "three requests in the lane")
        found = legible_keys(client)
        if is_sealed:
            name, stored = next(iter(client.hgetall(bodies).items()))
            client.hset(bodies, name, stored[:-1] + bytes([stored[-1] ^ 1]))
        dspyq("lane", "flush", "control", settings=path)
        if is_sealed:
            wait_until(lambda: client.hlen(bodies) == 1, 60, "the altered request, made again")
            dspyq("lane", "flush", "control", settings=path)
        running.result(90)
    found |= legible_keys(client)
    assert len(out.read_text().splitlines()) == 3
    if is_sealed:
        assert (found, legible_commands(commands)) == (set(), set())
        return
    assert {lane_key("control", "bodies"), "celery-task-meta-ID"} <= found
    assert "EVALSHA" in legible_commands(commands)


@pytest.mark.long
@pytest.mark.parametrize("program", ["claude", "flash"])
def test_altered_requests_are_made_again_whether_they_go_up_as_a_file_or_not(
    program, worker, dspyq, sealed, tmp_path, client, endpoint
):
    document = document_of(endpoint.url)
    document["models"][program]["batch_linger_seconds"] = 3
    path = sealed(True, document)
    runner = worker(path)
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"question": f"{CANARY} {number}"}) + "\n" for number in range(2)))
    command = ("batch", "run", str(source), "--program", program, "--output", str(out), "--lane", "provider")
    bodies = lane_key(program, "bodies")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(dspyq, *command, settings=path)
        wait_until(lambda: client.hlen(bodies) == 2, 60, "two requests in the lane")
        client.hset(bodies, mapping={name: stored[:-1] for name, stored in client.hgetall(bodies).items()})
        running.result(90)
    answers = [json.loads(line)["outputs"]["answer"] for line in out.read_text().splitlines()]
    assert len(answers) == 2
    assert "lane_requests_unreadable" in runner.logs()
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.billed_twice, endpoint.calls()) == (4, [], 0)
