"""Callers and operators while rows of a batch sleep in a lane."""

from __future__ import annotations

from tests.lane.conftest import asleep
from tests.support.processes import wait_until


def test_a_caller_of_a_sleeping_row_is_answered_live_and_its_double_is_listed(
    lane_worker, begin_lane, configure, lane_settings, endpoint, client
):
    from dspyq import predict

    del lane_worker
    endpoint.batches.script(is_manual=True)
    running = begin_lane("qa", 5)
    wait_until(lambda: asleep(client) == 5 and endpoint.batches.counts().batches == 1, 60, "no row sleeps")
    configure(lane_settings())
    answer = predict.apply_async(kwargs={"question": "question 3"}, program="qa").get(timeout=60)
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
