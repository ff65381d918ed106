"""Callers, operators and deployments while rows of a batch sleep in a lane."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import wait_until


@pytest.fixture
def begin_lane(run_lane):
    """Begin a batch in the provider's lane; the returned future has its outcome."""
    with ThreadPoolExecutor() as pool:
        yield lambda *arguments, **options: pool.submit(run_lane, *arguments, **options)


def asleep(client):
    """The number of jobs that sleep."""
    return sum(client.hexists(key, "asleep") for key in client.keys("dspy:v1:job:*"))


def test_a_caller_of_a_sleeping_row_is_answered_live_and_its_double_is_listed(
    lane_worker, begin_lane, configure, lane_settings, endpoint, client
):
    from dspyq import predict

    del lane_worker
    endpoint.batches.script(is_manual=True)
    running = begin_lane("qa", 5)
    wait_until(lambda: asleep(client) == 5 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    configure(lane_settings())
    answer = predict.delay(question="question 3", program="qa").get(timeout=60)
    assert answer.answer == "echo:question 3"
    assert endpoint.calls() == 1
    assert asleep(client) == 4
    endpoint.batches.finish()
    done = running.result(90)
    bill = endpoint.batches.bill()
    assert len(done.answers) == 5
    wait_until(lambda: not client.keys("dspy:v1:lane:control:lines"), 30, "lines are left")
    assert bill.live_nano_usd == 2 * bill.batch_nano_usd // 5
    account = next(key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4)
    assert (int(client.hget(account, "settled")), int(client.hget(account, "held"))) == (bill.batch_nano_usd, 0)


def test_a_batch_that_is_cancelled_pays_for_what_is_shipped_and_frees_the_rest(
    lane_worker, begin_lane, dspyq, endpoint, client
):
    del lane_worker
    endpoint.batches.script(is_manual=True)
    running = begin_lane("qa", 4, ok=False)
    wait_until(lambda: asleep(client) == 4 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    (batch,) = {key.split(b":")[4].decode() for key in client.keys("dspy:v1:budget:batch:*")}
    dspyq("batch", "cancel", batch)
    running.result(60)
    endpoint.batches.finish()
    wait_until(lambda: not client.keys("dspy:v1:lane:control:lines"), 60, "lines are left")
    account = f"dspy:v1:budget:batch:{batch}"
    bill = endpoint.batches.bill().nano_usd
    wait_until(lambda: int(client.hget(account, "settled") or 0) == bill, 30, "the account is not the bill")
    assert int(client.hget(account, "held")) == 0


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
