"""Figures of lanes that docs/lane.md states: ``pytest -m long -s tests/lane/test_lane_figures.py`` prints them."""

from __future__ import annotations

import sys
import time

import pytest

from tests.lane.conftest import asleep
from tests.support.processes import wait_until

pytestmark = pytest.mark.long
ROWS = 200


def show(text):
    sys.stdout.write(f"\n{text}\n")


def test_two_hundred_rows_of_two_calls_cost_half_of_the_live_run(worker, run_lane, lane_settings, endpoint, client):
    settings = lane_settings({"models": {"control": {"batch_linger_seconds": 5}}})
    worker(settings)
    live = run_lane("twice", ROWS, lane="", settings=settings)
    bill = endpoint.batches.bill()
    assert live.settled_nano_usd == bill.live_nano_usd
    client.flushdb()
    done = run_lane("twice", ROWS, settings=settings, name="lane")
    counts, both = endpoint.batches.counts(), endpoint.batches.bill()
    assert (len(done.answers), counts.lines_billed, done.held_nano_usd) == (ROWS, 2 * ROWS, 0)
    assert done.settled_nano_usd == both.batch_nano_usd
    assert 2 * both.batch_nano_usd == bill.live_nano_usd
    assert done.answers == live.answers
    assert counts.batches <= 3
    show(
        f"figure 1: {ROWS} rows of two calls: live ${live.settled_nano_usd / 1e9:.9f}, lane "
        f"${done.settled_nano_usd / 1e9:.9f}, bill ${both.batch_nano_usd / 1e9:.9f}, {counts.batches} shipments"
    )


def test_two_hundred_rows_whose_lines_fail_in_every_way_end_as_live(worker, run_lane, lane_settings, endpoint):
    worker(lane_settings())
    endpoint.batches.script(times=2, expired_share=0.2, failed_share=0.05, failed_status=503, unparseable_share=0.05)
    endpoint.batches.script(times=1, failed_share=0.1, failed_status=400)
    done = run_lane("twice", ROWS, ok=False)
    counts, bill = endpoint.batches.counts(), endpoint.batches.bill()
    errors = [row["error"] for row in done.rows if row["error"]]
    assert len(done.answers) + len(errors) == ROWS
    assert all("LMInvalidRequestError" in error["message"] for error in errors)
    assert (done.settled_nano_usd, done.held_nano_usd, counts.billed_twice) == (bill.nano_usd, 0, [])
    show(
        f"figure 2: {len(done.answers)} of {ROWS} answered, {len(errors)} lasting errors, {counts.batches} batches, "
        f"{counts.lines_billed} lines billed, {endpoint.calls()} live; ledger = bill = ${bill.nano_usd / 1e9:.9f}"
    )


def test_a_sleeping_row_takes_less_than_four_and_a_half_kilobytes(worker, begin_lane, lane_settings, endpoint, client):
    rows = 300  # more do not end within the minute that a command has here
    worker(lane_settings())
    endpoint.batches.script(is_manual=True)
    begin_lane("qa", 20)
    wait_until(lambda: asleep(client) == 20, 60, "no row sleeps")
    before = client.info("memory")["used_memory"]
    running = begin_lane("twice", rows, name="many")
    wait_until(lambda: client.zcard("dspy:v1:delayed") == rows + 20, 180, "rows are awake")
    wait_until(lambda: client.hlen("dspy:v1:lane:control:bodies") == 0, 60, "requests are kept")
    each = (client.info("memory")["used_memory"] - before) / rows
    show(f"figure 5: a sleeping row takes {each / 1000:.2f} kB of Redis ({rows} rows)")
    endpoint.batches.clear()
    began = time.monotonic()
    while not running.done():
        endpoint.batches.finish()
        time.sleep(0.2)
    done = running.result(240)
    show(f"{rows} rows of two calls landed and ended in {time.monotonic() - began:.0f} s")
    assert len(done.answers) == rows
    assert each <= 4_500


def test_a_caller_of_a_sleeping_row_waits_as_long_as_for_a_live_call(
    worker, begin_lane, configure, lane_settings, endpoint, client
):
    from dspyq import predict

    worker(lane_settings())
    configure(lane_settings())
    endpoint.batches.script(is_manual=True)
    endpoint.script(latency_seconds=0.5, lane="live")
    running = begin_lane("qa", 20)
    wait_until(lambda: asleep(client) == 20 and endpoint.batches.counts().batches >= 1, 60, "no row sleeps")

    def seconds(question):
        began = time.monotonic()
        predict.apply_async(kwargs={"question": question}, program="qa").get(timeout=60)
        return time.monotonic() - began

    new, promoted = seconds("a new one"), seconds("question 7")
    endpoint.batches.finish()
    done = running.result(120)
    show(f"figure 7: a new question took {new:.2f} s live, a sleeping row {promoted:.2f} s")
    assert len(done.answers) == 20
    assert promoted <= new + 1 or promoted <= 3  # a second, and more only on a loaded machine
