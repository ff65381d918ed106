"""Workers of other settings and versions while rows of a batch sleep in a lane."""

from __future__ import annotations

import pytest

from tests.lane.conftest import asleep
from tests.support.processes import wait_until


def test_open_lines_of_a_cancelled_batch_free_their_holds(worker, begin_lane, dspyq, lane_settings, endpoint, client):
    settings = lane_settings({"models": {"control": {"batch_linger_seconds": 600}}}, name="slow")
    worker(settings)
    running = begin_lane("qa", 4, settings=settings, ok=False)
    wait_until(lambda: asleep(client) == 4, 60, "no row sleeps")
    (batch,) = {key.split(b":")[4].decode() for key in client.keys("dspy:v1:budget:batch:*")}
    account = f"dspy:v1:budget:batch:{batch}"
    assert int(client.hget(account, "held")) > 0
    dspyq("batch", "cancel", batch)
    running.result(60)
    wait_until(lambda: int(client.hget(account, "held")) == 0, 60, "it still holds money")
    assert (endpoint.batches.counts().uploads, int(client.hget(account, "settled") or 0)) == (0, 0)


def test_rows_that_sleep_over_a_deployment_and_its_return_are_answered_by_what_was_paid(
    worker, begin_lane, lane_settings, endpoint, client
):
    old, new = lane_settings(), lane_settings({"programs": {"qa": {"version": "2"}}}, name="new")
    endpoint.batches.script(is_manual=True)
    first = worker(old)
    running = begin_lane("qa", 4, settings=old)
    wait_until(lambda: asleep(client) == 4 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    first.terminate()
    second = worker(new)
    endpoint.batches.finish()
    wait_until(lambda: asleep(client) == 0, 60, "the rows still sleep")
    wait_until(lambda: client.keys("dspy:v1:queue:qa.control@*"), 60, "no row waits for its version")
    second.terminate()
    worker(old)
    done = running.result(90)
    assert len(done.answers) == 4
    assert (endpoint.calls(), endpoint.batches.counts().lines_billed) == (0, 4)
    assert (done.settled_nano_usd, done.held_nano_usd) == (endpoint.batches.bill().nano_usd, 0)


@pytest.mark.journey
def test_replies_of_a_provider_are_salvaged_after_redis_has_lost_its_data(
    worker, begin_lane, run_lane, dspyq, configure, lane_settings, endpoint, client
):
    from dspyq.lane.providers.choice import provider_for
    from dspyq.lane.salvaging import Salvage
    from dspyq.programs.engine import Engine

    endpoint.batches.script(times=1, is_manual=True)
    first = worker(lane_settings())
    running = begin_lane("qa", 4, name="lost", ok=False)
    wait_until(lambda: asleep(client) == 4 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    first.kill()
    (batch,) = {key.split(b":")[4].decode() for key in client.keys("dspy:v1:budget:batch:*")}
    dspyq("batch", "cancel", batch)
    running.result(60)
    client.flushdb()
    endpoint.batches.finish()
    engine = Engine(configure(lane_settings()).models["control"])
    provider = provider_for("openai", engine.batch_wire.access())
    found = Salvage("control", provider, engine.batch_wire).run(0)
    assert (found.batches, found.replies, found.unreadable) == (1, 4, 0)
    worker(lane_settings())
    done = run_lane("qa", 4, name="again")
    assert len(done.answers) == 4
    assert (endpoint.batches.counts().lines_billed, endpoint.calls()) == (4, 0)
