"""Faults of a lane: what fails, and which test shows that nothing is lost and nothing paid twice without a trace.

| fault | shown by |
|---|---|
| a worker dies while jobs sleep, or at any step of a shipment | ``test_lane_deaths``; ``tests/chaos/lane_deaths.py``: each step twenty times, and random moments |
| it dies between a hold and its deposit | ``tests/chaos/lane_deaths.py``, at ``before-sleep``; a hold that lapses: ``test_lane_holds`` |
| the reply to a creation is lost, 5xx, 429; the listing lags | ``test_lane``: ``test_no_shipment_is_created_twice``, ``…_whatever_its_creation_answers``, ``test_a_double_that_its_listing_hid…`` |
| a batch without a name (Anthropic) | ``test_lane_protocols``: a lost reply, also beside a stranger's batch of as many lines; ``test_providers_submission`` |
| a listing of many pages, late or cut | ``test_providers_submission``; here cut in the middle |
| lines that expire, are cancelled or missing, fail for a while or for good | ``test_lane``, ``test_lane_protocols``, ``test_providers_results`` |
| a batch is refused by a quota | ``test_lane``: ``fails_with token_limit_exceeded``; ``test_providers_results`` |
| a bad line fails the validation of all | ``test_lane``: ``test_a_line_that_its_provider_refuses_fails_alone`` |
| results that are cut, refused for a while, or for good | ``test_lane``, ``test_providers_results``; here for good |
| Redis is killed and restarted, with its last second of writes or without | ``tests/chaos/lane_redis.py``; each step: ``test_lost_second`` |
| Redis is lost | ``test_lane_deployments``, ``test_lane_commands``: salvage |
| a batch is cancelled or paused by its owner | ``test_lane_callers``, ``test_lane_deployments``, ``test_lane_commands`` |
| two runners: one is frozen and thawed | here; ``tests/chaos/lane_deaths.py`` freezes one at each step |
| a line is paid twice, by the lane and after ``finish_by`` | ``test_finish_by`` |
| a caller waits for a row that sleeps | ``test_lane_callers`` |
| a deployment while rows sleep | ``test_lane_deployments`` |
"""  # noqa: E501 - a table

from __future__ import annotations

import pytest

from tests.support.lane_points import DEATHS_KEY, FROZEN, KEY
from tests.support.processes import wait_until

FAILPOINTS = {"workers": {"imports": ["tests.support.lane_failpoints"]}}


def freeze_at(point, worker, lane_settings, begin_lane, client, endpoint):
    """Freeze the runner at a point, thaw it once another one has landed all, and compare accounts and bill."""
    settings = lane_settings(FAILPOINTS)
    workers = [worker(settings, waits=False) for _ in range(2)]
    for each in workers:
        each.ready()
    client.set(KEY, FROZEN + point)
    running = begin_lane("twice", 6, settings=settings)
    wait_until(lambda: client.llen(DEATHS_KEY) == 1, 60, "no worker reached it")
    frozen_lines = client.hlen("dspy:v1:lane:control:lines")
    wait_until(lambda: client.hlen("dspy:v1:lane:control:lines") < frozen_lines, 60, "no other worker landed any")
    for each in workers:
        each.cont()
    done = running.result(120)
    assert len(done.answers) == 6
    wait_until(lambda: client.keys("dspy:v1:lane:*:shipments") == [], 90, "its shipments are not closed")
    counts, bill = endpoint.batches.counts(), endpoint.batches.bill()
    (account,) = [key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4]
    assert [int(client.hget(account, name)) for name in ("settled", "held")] == [bill.nano_usd, 0]
    assert endpoint.calls() == 0
    return counts, "".join(each.logs() for each in workers)


@pytest.mark.journey
def test_a_runner_that_is_frozen_in_mid_landing_lands_nothing_once_it_is_thawed(
    worker, lane_settings, begin_lane, client, endpoint
):
    counts, _ = freeze_at("mid-land", worker, lane_settings, begin_lane, client, endpoint)
    assert (counts.billed_twice, counts.double_names, counts.lines_billed) == ([], [], 12)


@pytest.mark.long
def test_a_runner_that_is_frozen_before_a_creation_makes_a_double_that_is_found_and_named(
    worker, lane_settings, begin_lane, client, endpoint
):
    endpoint.batches.script(delay_seconds=1.0)
    counts, logs = freeze_at("before-create", worker, lane_settings, begin_lane, client, endpoint)
    assert counts.batches == 3
    assert "lane_double_c" in logs  # cancelled, or charged


@pytest.mark.journey
def test_a_listing_that_is_cut_in_the_middle_is_read_again_and_nothing_is_created_twice(
    worker, lane_settings, run_lane, endpoint
):
    serving = worker(lane_settings())
    endpoint.batches.script(times=1, loses_reply=True)
    endpoint.batches.cut_lists(2)
    done = run_lane("qa", 3)
    counts = endpoint.batches.counts()
    assert len(done.answers) == 3
    assert (counts.batches, counts.lines_billed, counts.double_names) == (1, 3, [])
    assert "lane_step_failed" in serving.logs()


@pytest.mark.journey
def test_results_that_never_come_are_charged_at_their_bounds_and_their_calls_are_asked_again(
    worker, lane_settings, run_lane, endpoint
):
    settings = lane_settings({"workers": {"imports": ["tests.support.short_patience"]}})
    serving = worker(settings)
    endpoint.batches.script(times=1, refused_results=10_000)
    done = run_lane("qa", 3, settings=settings)
    counts, bill = endpoint.batches.counts(), endpoint.batches.bill()
    assert len(done.answers) == 3
    assert (counts.batches, counts.lines_billed, endpoint.calls(), done.held_nano_usd) == (2, 6, 0, 0)
    assert done.settled_nano_usd > bill.nano_usd  # three of the six lines at their bound
    assert "lane_results_gone" in serving.logs()
