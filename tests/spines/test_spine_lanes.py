"""A lane beside the same model's lanes on other spines."""

import pytest

from dspyq.client.predict import process_predict
from dspyq.guards.batch_lanes import BatchLanes
from dspyq.guards.call_records import JobRun
from dspyq.lane import scarcity
from dspyq.lane.journal import LaneJournal, OpenLines
from dspyq.lane.line import LaneLine, custom_id_of
from dspyq.lane.scarcity import Scarcity
from dspyq.lane.shipment import Shipment
from dspyq.lane.unpaid import UnpaidRows
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.keys import batch_account_key
from dspyq.store.spines import on_spine, process_spines
from tests.support.spine_questions import one_of_each

MANY_SECONDS = 9_999.0
LINE = "0f-1-1-12345678"


@pytest.mark.usefixtures("configured_spines")
def test_a_batch_short_of_money_stays_in_its_lane_while_it_has_shipments_on_another_spine(monkeypatch):
    monkeypatch.setattr(scarcity, "_LOOK_ELSEWHERE_SECONDS", 0.0)
    monkeypatch.setattr(scarcity, "_REST_KNOWN_SECONDS", 0.0)
    money_client().hset(batch_account_key("b"), mapping={"opened": 1, "max_nano_usd": 5, "lane": "provider"})
    task = process_predict().delay(question=one_of_each("row")[0]).id
    custom_id = custom_id_of("digest:1", 1, task)
    other = next(each for each in process_spines().all if each is not process_spines().of(task))

    def ship(state):
        with other.runtime.active():
            journal = LaneJournal(jobs_client(), "control", "its runner")
            assert journal.lease(60.0)
            journal.save(Shipment("dspyq-one", state, batches=("b",)))

    with on_spine(task):
        journal, unpaid = LaneJournal(jobs_client(), "control"), UnpaidRows(jobs_client(), "control")
        line = LaneLine(task, "qa", "control", "a version", bound=1, at=0.0, batch="b")
        assert journal.deposit(custom_id, line, b"{}")
        unpaid.add(JobRun(task, "", "qa", "control", batch="b"), 0)
        lane = Scarcity(journal, unpaid, BatchLanes(money_client()))
        opened = OpenLines(1, MANY_SECONDS, MANY_SECONDS, MANY_SECONDS, all_lines=1, unpaid_rows=99)
        ship("submitted")
        assert lane.puts_off(opened, [], 1.0) == []
        assert not money_client().hexists(batch_account_key("b"), "is_in_rest")
        ship("closing")
        assert lane.puts_off(opened, [], 1.0) == [custom_id]
        assert money_client().hexists(batch_account_key("b"), "is_in_rest")
