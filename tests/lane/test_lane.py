"""Batches of whole programs through the provider's batch interface, exact to the nano-dollar."""

from __future__ import annotations

import random

import pytest

from tests.support.journeys import few_of
from tests.support.processes import wait_until

pytestmark = pytest.mark.usefixtures("lane_worker")


@pytest.fixture(autouse=True)
def _empty_lane(client, endpoint):
    """Wait until the lane is closed, before the endpoint forgets its batches: its worker lives on."""
    del endpoint
    yield
    wait_until(lambda: left_in(client) == [], 60, lambda: f"{left_in(client)} is left")


def left_in(client):
    """The keys of lanes but their history."""
    return [key for key in client.keys("dspy:v1:lane*") if not key.endswith(b":past")]


def is_exact(done, endpoint):
    """True if the batch's account is the endpoint's bill, and nothing is held."""
    assert (done.settled_nano_usd, done.held_nano_usd) == (endpoint.batches.bill().nano_usd, 0)
    assert endpoint.batches.counts().billed_twice == []
    return True


def test_a_program_of_two_calls_costs_half_in_two_rounds(run_lane, endpoint):
    done = run_lane("twice", 20)
    assert len(done.answers) == 20
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.batches, endpoint.calls()) == (40, 2, 0)
    assert is_exact(done, endpoint)
    wait_until(lambda: endpoint.batches.counts().files_left == 0, 30, lambda: "files are left")


def test_calls_of_one_moment_go_together(run_lane, endpoint):
    done = run_lane("parallel", 1)
    assert len(done.answers) == 1
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.batches) == (4, 2)
    assert is_exact(done, endpoint)


def test_lines_that_expire_fail_or_cannot_be_read_end_as_live_ones_would(run_lane, endpoint):
    endpoint.batches.script(
        times=2, expired_share=0.2, failed_share=0.1, failed_status=503, unparseable_share=0.1, missing_share=0.0
    )
    done = run_lane("twice", 20)
    assert len(done.answers) == 20
    assert is_exact(done, endpoint)


def test_a_request_that_is_refused_for_good_fails_its_row_with_the_error_of_a_live_call(run_lane, endpoint):
    endpoint.batches.script(failed_share=1.0, failed_status=400, failed_code="content_policy_violation")
    done = run_lane("twice", 2, ok=False)
    assert {row["error"]["type"] for row in done.rows} == {"PredictionFailed"}
    assert all("LMInvalidRequestError" in row["error"]["message"] for row in done.rows), done.rows
    assert endpoint.calls() == 0
    assert is_exact(done, endpoint)


def test_lines_that_expire_every_time_are_made_live_in_the_end(run_lane, endpoint):
    endpoint.batches.script(expired_share=1.0)
    done = run_lane("qa", 3)
    assert len(done.answers) == 3
    assert endpoint.calls() == 3
    assert endpoint.batches.counts().batches == 3
    assert is_exact(done, endpoint)


def test_replies_that_never_parse_end_as_often_asked_as_live(run_lane, endpoint):
    endpoint.batches.script(unparseable_share=1.0)
    done = run_lane("qa", 2, ok=False)
    assert {row["error"]["type"] for row in done.rows} == {"PredictionFailed"}
    assert is_exact(done, endpoint)


@pytest.mark.long
def test_a_program_whose_requests_hold_the_time_ends_with_a_live_call(run_lane, endpoint):
    done = run_lane("clock", 1, timeout_seconds=200)
    assert len(done.answers) == 1
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.batches, endpoint.calls()) == (9, 9, 1)
    assert is_exact(done, endpoint)


def create_once(run_lane, endpoint, fate):
    endpoint.batches.script(times=1, **fate)
    done = run_lane("qa", 4)
    assert len(done.answers) == 4
    counts = endpoint.batches.counts()
    assert (counts.double_names, counts.lines_billed) == ([], 4)
    assert is_exact(done, endpoint)


@pytest.mark.parametrize(
    "fate", few_of([{"loses_reply": True}, {"missing_polls": 2, "cut_results": 1}], 1), ids="-".join
)
def test_no_shipment_is_created_twice(run_lane, endpoint, fate):
    create_once(run_lane, endpoint, fate)


@pytest.mark.long
@pytest.mark.parametrize(
    "fate",
    [
        {"loses_reply": True, "list_lag_seconds": 1.0},
        {"status": 500},
        {"status": 500, "creates": True},
        {"status": 429, "retry_after": "1"},
        {"fails_with": "token_limit_exceeded"},
        {"refused_results": 1},
    ],
    ids="-".join,
)
def test_no_shipment_is_created_twice_whatever_its_creation_answers(run_lane, endpoint, fate):
    create_once(run_lane, endpoint, fate)


@pytest.mark.long
def test_a_double_that_its_listing_hid_is_found_cancelled_or_charged_and_named(run_lane, endpoint, lane_worker, client):
    endpoint.batches.script(times=1, loses_reply=True, list_lag_seconds=5.0)
    done = run_lane("qa", 4)
    assert len(done.answers) == 4
    wait_until(lambda: "lane_double_charged" in lane_worker.logs(), 30, lambda: "no double was found")
    counts, bill = endpoint.batches.counts(), endpoint.batches.bill()
    assert (counts.lines_billed, len(counts.billed_twice)) == (8, 4)
    account = next(key for key in client.keys("dspy:v1:budget:batch:*") if key.count(b":") == 4)
    assert int(client.hget(account, "settled")) == bill.nano_usd


def test_a_line_that_its_provider_refuses_fails_alone(run_lane, endpoint):
    endpoint.batches.script(times=1, fails_with="invalid_json_line", bad_line=2)
    done = run_lane("qa", 4, ok=False)
    assert len(done.answers) == 3
    assert endpoint.calls() == 0
    assert is_exact(done, endpoint)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_the_account_is_the_bill_whatever_comes_of_lines(run_lane, endpoint, seed):
    """Each round has another fate; lines that are billed twice are on the account twice."""
    chance = random.Random(seed)  # noqa: S311 - fates, no secrets
    for _ in range(4):
        endpoint.batches.script(
            times=1,
            expired_share=chance.choice([0, 0.3, 1]),
            failed_share=chance.choice([0, 0.3]),
            failed_status=chance.choice([400, 429, 503]),
            failed_usage=chance.choice([False, True]),
            unparseable_share=chance.choice([0, 0.3]),
            doubled_share=chance.choice([0, 0.5]),
            cut_results=chance.choice([0, 1]),
        )
    done = run_lane("twice", 12, ok=None)
    assert len(done.rows) == 12
    bill = endpoint.batches.bill()
    assert (done.settled_nano_usd, done.held_nano_usd) == (bill.nano_usd, 0)
    assert "= the ledger" in done.text
