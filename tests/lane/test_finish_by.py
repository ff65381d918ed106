"""``finish_by``: at that hour every row is there, however long the provider takes."""

import json
import time
from collections import Counter
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


def hour_in(seconds):
    """Return the arguments that state an hour, so many seconds from now."""
    at = datetime.fromtimestamp(int(time.time()) + seconds, UTC)
    return "--finish-by", at.strftime("%H:%M:%S"), "--timezone", "UTC"


def account_of(client):
    """Return the one batch's id, and what its account has settled and holds."""
    (account,) = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4]
    settled, held = client.hmget(account, "settled", "held")
    return account.split(b":")[4].decode(), int(settled), int(held or 0)


def wait_for_the_end_of_the_lane(client):
    wait_until(lambda: client.keys("dspy:v1:lane:*:lines") == [], 60, lambda: str(client.keys("dspy:v1:lane*")))


@pytest.mark.usefixtures("lane_worker")
def test_every_row_is_there_at_the_hour_though_the_provider_never_ends(run_lane, endpoint, client):
    endpoint.batches.script(is_manual=True, times=10)
    done = run_lane("qa", 8, *hour_in(15))  # eight threads make eight rows in the five seconds of an unmeasured run
    assert len(done.answers) == 8
    assert "the hour is near" in done.text
    assert endpoint.calls() == 8
    endpoint.batches.finish()
    wait_for_the_end_of_the_lane(client)
    _, settled, held = account_of(client)
    assert (settled, held) == (endpoint.batches.bill().nano_usd, 0)


@pytest.mark.journey
@pytest.mark.usefixtures("lane_worker")
def test_calls_that_the_provider_makes_after_the_hour_are_charged_once_more_and_listed_on_no_row(
    run_lane, dspyq, lane_settings, endpoint, client
):
    endpoint.batches.script(is_manual=True, ignores_cancel=True)
    done = run_lane("qa", 4, *hour_in(13))
    assert (len(done.answers), endpoint.calls()) == (4, 4)
    endpoint.batches.finish()
    wait_for_the_end_of_the_lane(client)
    batch, settled, held = account_of(client)
    bill = endpoint.batches.bill()
    assert (settled, held) == (bill.nano_usd, 0)
    assert bill.batch_nano_usd == bill.live_nano_usd // 2
    shown = json.loads(dspyq("costs", "--batch", batch, "--json", settings=lane_settings()).stdout)
    listed = shown["calls_on_no_row"]
    assert len(listed) == 4
    assert sum(round(1e9 * call["charged_usd"]) for call in listed) == bill.batch_nano_usd


@pytest.mark.long
def test_before_the_hour_rows_go_to_the_flex_tier_and_live_where_that_is_full_for_less_than_the_worst_case(
    worker, run_lane, begin_lane, dspyq, lane_settings, endpoint, client, tmp_path
):
    settings = lane_settings({"models": {"control": {"service_tier_price_factors": {"flex": 0.5}}}})
    worker(settings)
    run_lane("qa", 8, lane="", settings=settings, name="history", question="earlier")
    live_nano_usd = endpoint.batches.bill().live_nano_usd
    hour = hour_in(60)
    source = tmp_path / "quoted.jsonl"
    source.write_text("".join(json.dumps({"question": f"question {number}"}) + "\n" for number in range(8)))
    command = ["batch", "run", str(source), "--program", "qa", "--lane", "provider", "--dry-run", "--json", *hour]
    quote = json.loads(dspyq(*command, settings=settings).stdout)["hour"]
    client.delete(*client.keys("dspy:v1:budget:batch:*"))
    endpoint.batches.script(is_manual=True)
    endpoint.script(times=3, status=429, error_code="resource_unavailable", lane="live")
    before = endpoint.calls()
    running = begin_lane("qa", 8, *hour, settings=settings)
    endpoint.batches.wait_for_batches(1)
    wait_until(lambda: endpoint.batches.advance(2) == 2, 60, "a batch runs")
    done = running.result(120)
    _, settled, held = account_of(client)
    tiers = Counter(request.parameters.get("service_tier") for request in endpoint.requests()[before:])
    assert len(done.answers) == 8
    assert tiers == {"flex": 6, "default": 3}
    each_nano_usd = live_nano_usd / 8
    assert (settled, held) == (round((2 + 3) * each_nano_usd / 2 + 3 * each_nano_usd), 0)
    assert quote["best_usd"] <= settled / 1e9 <= quote["worst_usd"]
