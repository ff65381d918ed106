"""``finish_by``: at that hour every row is there, however long the provider takes."""

import time
from datetime import UTC, datetime

import pytest

from dspyq.batch.finish_by import next_time, timetable
from tests.support.processes import wait_until

NIGHT = datetime(2026, 11, 30, 22, 0, tzinfo=UTC).timestamp()


def test_an_hour_is_the_next_at_which_a_clock_of_its_zone_shows_it():
    assert next_time("07:00", "UTC", NIGHT) == NIGHT + 9 * 3600
    assert next_time("7:00", "Europe/Berlin", NIGHT) == NIGHT + 8 * 3600
    assert next_time("22:00:30", "UTC", NIGHT) == NIGHT + 30
    assert next_time("22:00", "UTC", NIGHT) == NIGHT + 24 * 3600


def test_rows_leave_the_lane_early_enough_to_be_made_live_and_its_shipments_are_cancelled_before():
    table = timetable(NIGHT, NIGHT + 9 * 3600, live_seconds=600, has_flex=False)
    assert table.cancel_at < table.tail_at == table.live_at < table.finish_at - 600
    assert [table.stage(at) for at in (NIGHT, table.cancel_at, table.live_at)] == ["lane", "closing", "live"]


def test_the_flex_tier_gets_time_before_live_calls_where_it_is_cheaper():
    table = timetable(NIGHT, NIGHT + 9 * 3600, live_seconds=600, has_flex=True)
    assert table.stage(table.live_at - 1) == "flex"
    assert table.live_at == timetable(NIGHT, NIGHT + 9 * 3600, 600, has_flex=False).live_at


@pytest.mark.usefixtures("lane_worker")
def test_every_row_is_there_at_the_hour_though_the_provider_never_ends(run_lane, endpoint, client):
    endpoint.batches.script(is_manual=True, times=10)
    finish_at = int(time.time()) + 15  # eight threads make eight rows in the five seconds of an unmeasured run
    hour = datetime.fromtimestamp(finish_at, UTC).strftime("%H:%M:%S")
    done = run_lane("qa", 8, "--finish-by", hour, "--timezone", "UTC")
    assert len(done.answers) == 8
    assert "the hour is near" in done.text
    assert endpoint.calls() == 8
    endpoint.batches.finish()
    wait_until(lambda: client.keys("dspy:v1:lane:*:lines") == [], 60, lambda: str(client.keys("dspy:v1:lane*")))
    (account,) = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4]
    assert int(client.hget(account, "settled")) == endpoint.batches.bill().nano_usd
    assert int(client.hget(account, "held") or 0) == 0
