"""Money of lanes: holds of hours leave room for others, and limits stop a batch as they stop a live one."""

from __future__ import annotations

from tests.lane.conftest import asleep
from tests.support.processes import wait_until


def held_usd(client):
    """Dollars that all calls hold of the day's limit."""
    (account,) = client.keys("dspy:v1:budget:all:daily:*")
    return int(client.hget(account, "held") or 0) / 1e9


def test_holds_of_a_lane_leave_half_of_the_day_to_interactive_calls(
    worker, begin_lane, configure, lane_settings, endpoint, client
):
    from dspyq import predict

    settings = lane_settings({"budget": {"daily_usd": 0.02}}, name="limited")
    worker(settings)
    endpoint.batches.script(times=1, is_manual=True)
    running = begin_lane("qa", 30, settings=settings)
    wait_until(lambda: asleep(client) > 0 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    assert 0 < held_usd(client) <= 0.01
    configure(settings)
    answer = predict.apply_async(kwargs={"question": "now"}, program="qa").get(timeout=60)
    assert answer.answer == "echo:now"
    endpoint.batches.finish()
    done = running.result(200)
    assert len(done.answers) == 30
    bill = endpoint.batches.bill()
    assert (done.settled_nano_usd, done.held_nano_usd) == (bill.batch_nano_usd, 0)


def test_a_batch_stops_at_its_limit_and_never_above(worker, run_lane, lane_settings, endpoint):
    worker(lane_settings())
    done = run_lane("twice", 12, "--max-usd", "0.003", ok=False)
    bill = endpoint.batches.bill()
    assert (done.settled_nano_usd, done.held_nano_usd, endpoint.calls()) == (bill.batch_nano_usd, 0, 0)
    assert done.settled_nano_usd <= 3_000_000
