"""A Redis that has lost its last second: each step that processes took for done and Redis has forgotten, one by one.

A test has Redis forget by putting keys back as they were before a step, as after a restart without its latest writes.
"""

from __future__ import annotations

import pytest
import redis

from dspyq.batch.account import BatchAccount
from dspyq.batch.journal import Journal
from dspyq.batch.receipts import Receipts
from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget
from dspyq.guards.call_journal import CallJournal
from dspyq.guards.call_records import CallRecord
from dspyq.lane import disk
from dspyq.lane.collecting import Collecting
from dspyq.lane.disk import wait_for_disk
from dspyq.lane.journal import LaneJournal
from dspyq.lane.landing import Landing
from dspyq.lane.line import LaneLine, attempt_id_of
from dspyq.lane.line_holds import LineHolds
from dspyq.lane.providers.protocol import BatchState, LineOutcome, RemoteBatch, RemoteLine
from dspyq.lane.shipment import Shipment
from dspyq.store.keys import job_key, lane_key, lanes_key
from dspyq.store.scripts import run_together
from tests.support.budgets import settings
from tests.support.processes import wait_until

BATCH, BOUND = "00ff00ff00ff00ff", 100
MONEY = "dspy:v1:budget*"
IDS = ["0" * 32 + "-1-1-one", "1" * 32 + "-1-1-two"]


def state_of(client, pattern):
    return {key: (client.pttl(key), client.dump(key)) for key in client.keys(pattern)}


def go_back(client, pattern, state):
    """Put all keys of a pattern back as they were."""
    for key in client.keys(pattern):
        client.delete(key)
    for key, (milliseconds, dump) in state.items():
        client.restore(key, max(0, milliseconds), dump)


class Lane:
    """A lane with lines of one batch, its account and the holds."""

    def __init__(self, client, *, model="unserved", most_usd=1.0, variant="a", landing=Landing, money=None):
        self.client, self.model, self.variant = client, model, variant
        self.account = BatchAccount(client, BATCH)
        self.account.open(max_usd=most_usd, lane="provider")
        self.budget = Budget(client, settings())
        self.journal = LaneJournal(client, model, "me")
        self.landing = landing(money or client, self.journal, self.budget, None)
        self.holds = LineHolds(self.journal, self.budget, self.landing)

    def line(self, custom_id):
        return LaneLine(custom_id[-3:], "qa", self.variant, f"qa.{self.variant}", BOUND, 1.0, BATCH)

    def put_asleep(self, task):
        fields = {"queue": f"qa.{self.variant}", "score": 1, "message": "{}", "asleep": 1}
        self.client.hset(job_key(task), mapping=fields)
        self.client.zadd("dspy:v1:delayed", {task: 9e9})

    def hold(self, custom_id):
        billed = self.line(custom_id).billed(self.model, custom_id)
        (verdict,) = run_together(self.client, [self.budget.hold(billed, BOUND, lease_seconds=60.0)])
        return verdict.is_held

    def deposit(self, custom_id):
        return self.journal.deposit(custom_id, self.line(custom_id), b"body")

    def fill(self, *custom_ids):
        for custom_id in custom_ids:
            self.put_asleep(custom_id[-3:])
            assert self.deposit(custom_id) == "there"
        assert self.journal.lease(60.0)
        return self.journal.fill("dspyq-one", 10, 10_000, 0)

    @property
    def money(self):
        books = self.account.read()
        return books.settled_nano_usd, books.held_nano_usd


def test_a_hold_that_is_lost_while_its_line_is_written_again_is_held_before_the_line_is_sent(client):
    lane = Lane(client)
    before = state_of(client, MONEY)
    assert lane.hold(IDS[0])
    go_back(client, MONEY, before)
    lane.fill(IDS[0])
    assert lane.money == (0, 0)
    assert lane.holds.secure("dspyq-one", 60.0) == 1
    assert lane.money == (0, BOUND)
    assert lane.holds.secure("dspyq-one", 60.0) == 1
    assert lane.money == (0, BOUND)


def test_a_line_whose_lease_ran_out_and_was_charged_its_bound_is_sent_as_it_is(client):
    lane = Lane(client)
    billed = lane.line(IDS[0]).billed(lane.model, IDS[0])
    run_together(client, [lane.budget.hold(billed, BOUND, lease_seconds=0.0)])
    wait_until(lambda: lane.budget.sweep() == 1, 10, "it is not charged")
    lane.fill(IDS[0])
    assert lane.holds.secure("dspyq-one", 60.0) == 1
    assert lane.money == (BOUND, 0)


def test_a_line_whose_lost_hold_finds_no_money_any_more_leaves_its_shipment_and_wakes_its_row(client):
    lane = Lane(client, most_usd=1.5 * BOUND / 1e9)
    assert lane.hold(IDS[0])
    lane.fill(*IDS)
    assert lane.holds.secure("dspyq-one", 60.0) == 1
    assert list(lane.journal.lines(IDS)) == [IDS[0]]
    assert client.zrange("dspy:v1:queue:qa.a", 0, -1) == [b"two"]
    assert lane.money == (0, BOUND)
    lane.account.open(max_usd=1.0)
    assert lane.hold(IDS[1])  # under the same id


def test_a_call_that_was_taken_back_may_be_held_again_and_a_released_one_may_not(client):
    lane = Lane(client)
    billed = [lane.line(each).billed("unserved", each) for each in IDS]
    run_together(client, [lane.budget.take_back(billed[0]), lane.budget.release(billed[1])])
    assert lane.hold(IDS[0])
    with pytest.raises(redis.ResponseError, match="is settled"):
        lane.hold(IDS[1])


def test_a_late_run_puts_no_line_into_the_lane_that_has_landed(client):
    lane = Lane(client)
    lane.fill(IDS[0])
    record = CallRecord("unserved", "ok", 1.0, key="0:1")
    attempt = attempt_id_of("a", IDS[0])
    fields = CallJournal.fields_of(lane.line(IDS[0]).job, attempt, record, b"reply")
    assert lane.journal.run([lane.journal.land(IDS[0], fields)]) == [1]
    assert lane.deposit(IDS[0]) == "landed"
    client.delete(job_key("one"))
    assert lane.deposit(IDS[0]) == "gone"
    assert lane.journal.open_lines().all_lines == 0


def test_a_line_that_lands_without_a_hold_is_counted_once(client, caplog):
    lane = Lane(client)
    lane.fill(IDS[0])
    Collecting(lane.journal, None, lane.landing).charge_unknown(Shipment("dspyq-one"))
    assert len([record for record in caplog.records if "lane_lines_without_hold" in str(record.msg)]) == 1
    assert lane.money == (0, 0)


class Results:
    """A provider that has the result of the first line alone, and cannot be read."""

    def read_lines(self, _):
        yield RemoteLine(IDS[0], LineOutcome.UNREADABLE)


def test_a_line_whose_landing_is_lost_before_its_batch_is_collected_is_not_taken_for_a_missing_one(client):
    class Forgetful(Landing):
        """Its Redis has lost the first landing by the time the next begins."""

        def land(self, remote):
            landed = super().land(remote)
            if states:
                go_back(client, "*", states.pop())
            return landed

    states = []
    lane = Lane(client, landing=Forgetful)
    assert all(map(lane.hold, IDS))
    lane.fill(*IDS)
    states.append(state_of(client, "*"))
    collecting, batch = (
        Collecting(lane.journal, Results(), lane.landing),
        RemoteBatch("batch_1", "", BatchState.ENDED, 0.0),
    )
    collecting.collect(Shipment("dspyq-one"), batch)
    assert (list(lane.journal.lines(IDS)), lane.money) == ([IDS[0]], (0, BOUND))
    collecting.collect(Shipment("dspyq-one"), batch)
    assert (lane.journal.lines(IDS), lane.money) == ({}, (BOUND, 0))


def test_where_money_is_apart_lines_land_once_their_money_is_on_its_disk(client, redis_server):
    class Forgetful(Landing):
        """Its Redis of money has lost what was settled by the time it was to be on the disk."""

        def wait_for_disk(self, batch):
            super().wait_for_disk(batch)
            waited.append((batch, lane.money, len(lane.journal.lines(IDS))))
            go_back(client, MONEY, held)

    waited = []
    with redis_server.client(decode_responses=False) as money:
        lane = Lane(client, landing=Forgetful, money=money)
        assert all(map(lane.hold, IDS))
        lane.fill(*IDS)
        held = state_of(client, MONEY)
        landed = Collecting(lane.journal, None, lane.landing).charge_unknown(Shipment("dspyq-one"))
    assert waited == [(BATCH, (2 * BOUND, 0), 2)]
    assert landed.unanswered == 2
    assert lane.money == (2 * BOUND, 0)


def test_costs_that_return_to_the_notes_after_they_were_cleared_are_cleared_again(client, tmp_path):
    lane, journal = Lane(client), Journal(tmp_path / "out.jsonl")
    receipts = Receipts(lane.account, journal, lambda call: call(), waits_for_disk=True)
    assert lane.hold(IDS[0])
    billed = lane.line(IDS[0]).billed("unserved", IDS[0])
    run_together(client, [lane.budget.settle(billed, Bill(7))])
    noted = state_of(client, f"dspy:v1:budget:batch:{BATCH}:calls")
    (cost,) = lane.account.costs(["one"])
    journal.keep_receipts({"one": cost.receipt})
    for _ in range(2):
        receipts.clear()
        assert lane.account.statement()[1] == []
        go_back(client, f"dspy:v1:budget:batch:{BATCH}:calls", noted)
    receipts.end()
    assert lane.account.statement()[1] == []
    assert journal.receipts() == {}
    journal.close()


def test_a_wait_for_the_disk_waits_for_what_other_connections_have_written(fresh_redis_server, tmp_path):
    server = fresh_redis_server(append_only_directory=tmp_path)
    client = server.client(decode_responses=False)
    client.ping()  # a connection of the pool, beside that of scripts
    journal = LaneJournal(client, "unserved", "me")
    assert journal.lease(60.0)
    with server.monitored() as commands:
        journal.save_for_certain(Shipment("dspyq-one"))
    ours = [command for command in commands if not command.is_in_script]
    at = next(number for number, command in enumerate(ours) if command.name == "WAITAOF")
    assert (ours[at - 1].name, ours[at - 1].client) == ("SET", ours[at].client)
    assert "HSET" in [command.name for command in commands[: commands.index(ours[at])]]


def test_a_disk_that_is_never_written_is_refused_unless_redis_leaves_it_to_its_system(
    fresh_redis_server, tmp_path, monkeypatch
):
    monkeypatch.setattr(disk, "_ATTEMPTS", 1)
    monkeypatch.setattr(disk, "_MILLISECONDS", 50)
    server = fresh_redis_server(append_only_directory=tmp_path)
    server.cli("CONFIG", "SET", "appendfsync", "no")
    server.cli("ACL", "SETUSER", "least", "on", "nopass", "~*", "+@all", "-@dangerous")
    mark = "SET", "mark", "1"
    wait_for_disk(server.client(), mark)
    with redis.Redis(port=server.port, username="least") as least, pytest.raises(redis.TimeoutError, match="disk"):
        wait_for_disk(least, mark)
    server.cli("CONFIG", "SET", "appendfsync", "always")
    wait_for_disk(least, mark)


@pytest.mark.journey
def test_a_shipment_that_lost_its_lines_is_not_sent_and_one_whose_landing_was_lost_lands_again(
    worker, lane_settings, client, endpoint
):
    lane = Lane(client, model="control", variant="control")
    assert all(map(lane.hold, IDS))
    lane.fill(*IDS)
    gone = Shipment("dspyq-one", "closing", lines=2, batch_id="batch_0", remote_state="gone", batches=(BATCH,))
    lost = Shipment("dspyq-two", "filled", lines=3, filled_at=1.0, batches=(BATCH,))
    shipments = lane_key("control", "shipments")
    client.hset(shipments, mapping={one.name: one.to_json() for one in (gone, lost)})
    client.delete(lane_key("control", "runner"))
    assert client.smembers(lanes_key()) == {b"control"}
    worker(lane_settings())
    wait_until(lambda: not client.exists(shipments), 60, "they are not closed")
    assert lane.journal.lines(IDS) == {}
    assert lane.money == (2 * BOUND, 0)
    assert endpoint.batches.counts().batches == 0


@pytest.mark.journey
def test_a_row_is_written_once_its_cost_is_on_the_disk(worker, lane_settings, run_lane, redis_server):
    worker(lane_settings())
    with redis_server.monitored() as commands:
        run_lane("qa", 2)
    waits = [number for number, command in enumerate(commands) if command.name == "WAITAOF"]
    answered = [number for number, each in enumerate(commands) if each.text.startswith("SET celery-task-meta")]
    cleared = [number for number, each in enumerate(commands) if each.name == "HDEL" and ":calls" in each.text]
    assert len(answered) == 2
    assert any(max(answered) < wait < max(cleared) for wait in waits)
