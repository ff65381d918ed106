"""The end of a batch's run is a log line and a metric, beside the event that its caller gets."""

import logging

from dspyq.batch.ends import note_end
from dspyq.batch.events import BatchOutcome
from dspyq.worker.monitoring.fleet import Fleet

OUTCOME = BatchOutcome(
    "b1", "finished", rows=3, ok=2, failed_by_type={"Unparseable": 1}, cached=0, joined=0, left=0, is_read=True,
    spent_usd=0.25, reconciliation=None,
)  # fmt: skip


def test_the_end_of_a_batch_is_logged_and_counted(configured, caplog):
    with caplog.at_level(logging.INFO, "dspyq.batches"):
        note_end(OUTCOME, "qa", "provider")
        note_end(OUTCOME, "qa", "")
    first, second = (record.msg for record in caplog.records)
    assert (first.name, first.fields["state"], first.fields["lane"]) == ("batch_ended", "finished", "provider")
    assert (first.fields["ok"], first.fields["failed"], second.fields["lane"]) == (2, 1, "live")
    assert Fleet(configured, {}).read().batch_ends == {("qa", "finished"): 2}
