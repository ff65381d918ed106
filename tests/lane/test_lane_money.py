"""Money of lanes: holds of hours leave room for others, and limits stop a batch as they stop a live one."""

from __future__ import annotations

import sys

import pytest

from tests.lane.conftest import asleep
from tests.support.processes import wait_until


def show(text):
    sys.stdout.write(f"\n{text}\n")


def held_usd(client):
    """Dollars that all calls hold of the day's limit."""
    (account,) = client.keys("dspy:v1:budget:all:daily:*")
    return int(client.hget(account, "held") or 0) / 1e9


@pytest.mark.journey
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


@pytest.mark.journey
def test_a_batch_stops_at_its_limit_and_never_above(worker, run_lane, lane_settings, endpoint):
    settings = lane_settings({"models": {"control": {"max_tokens": 200}}})
    worker(settings)
    done = run_lane("twice", 12, "--max-usd", "0.0018", settings=settings, ok=False)
    bill, paid = endpoint.batches.bill(), endpoint.batches.counts().lines_billed + endpoint.calls()
    assert (done.settled_nano_usd, done.held_nano_usd) == (bill.nano_usd, 0)
    assert done.settled_nano_usd <= 1_800_000
    assert 0 < paid == 2 * len(done.answers)
    assert "run again with a higher --max-usd" in done.text
    assert "= the ledger" in done.text


def test_the_last_lines_of_a_batch_with_enough_money_are_shipped_beside_a_large_shipment(
    worker, begin_lane, lane_settings, endpoint
):
    settings = lane_settings({"models": {"control": {"batch_max_lines": 40}}}, name="full")
    worker(settings)
    endpoint.batches.script(is_manual=True)
    running = begin_lane("qa", 41, settings=settings)

    def shipped():
        return [batch["lines"] for batch in endpoint.batches.list()]

    wait_until(lambda: sum(shipped()) == 41, 60, lambda: f"shipped: {shipped()}")  # the 41st is under 5 % of all
    endpoint.batches.finish()
    assert len(running.result(200).answers) == 41


@pytest.mark.long
@pytest.mark.parametrize("lane", ["provider", "provider,stop"])
def test_a_batch_with_half_its_money_pays_for_rows_that_end_in_shipments_worth_a_round(
    worker, run_lane, lane_settings, endpoint, client, lane
):
    """Figure 6 of docs/lane.md: 55 % of what rows of two calls need."""
    rows = 100
    settings = lane_settings({"models": {"control": {"max_tokens": 200, "batch_linger_seconds": 1.0}}})
    worker(settings)
    warm = run_lane("twice", 4, settings=settings, name="warm", question="warm question")
    wait_until(lambda: not client.exists("dspy:v1:lane:control:lines"), 60, "lines are left")
    lines, batches, calls = endpoint.batches.counts().lines_billed, len(endpoint.batches.list()), endpoint.calls()
    limit_nano_usd = round(rows * warm.settled_nano_usd / 4 * 0.55)
    limit = f"{limit_nano_usd / 1e9:.9f}"
    options = {"settings": settings, "name": "limited", "ok": False, "lane": lane, "timeout_seconds": 400}
    done = run_lane("twice", rows, "--max-usd", limit, **options)
    spent = done.settled_nano_usd - warm.settled_nano_usd
    sizes = [batch["lines"] for batch in endpoint.batches.list()[batches:]]
    shipped, live = endpoint.batches.counts().lines_billed - lines, endpoint.calls() - calls
    show(
        f"figure 6, --lane {lane}: ${spent / 1e9:.9f} of ${limit}; {len(done.answers)} of {rows} rows; {shipped} lines "
        f"and {live} live calls paid; shipments of {sizes}"
    )
    assert done.settled_nano_usd == endpoint.batches.bill().nano_usd
    assert (done.held_nano_usd, spent <= limit_nano_usd) == (0, True)
    assert 2 * len(done.answers) >= 0.95 * (shipped + live)
    assert live == 0 or lane == "provider"
    for index, size in enumerate(sizes[:-1]):
        waiting = rows - sum(sizes[:index]) / 2
        assert size + 1 >= 0.05 * waiting, (size, waiting)
