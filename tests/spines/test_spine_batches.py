"""Batches over several spines: each row has its line once, and the account is the endpoint's bill."""

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lane.conftest import LANES
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.processes import LocalProcess, wait_until
from tests.support.spine_questions import some_of_each

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]

ROWS = 24


@pytest.fixture
def settings(tmp_path, endpoint):
    return write_settings(tmp_path / "batches.toml", merged(default_document(endpoint.url), LANES))


@pytest.fixture
def questions(configured_spines):
    del configured_spines
    return some_of_each("question", ROWS)


@pytest.fixture
def expected(questions):
    return [f"echo:{each}" for each in questions]


@pytest.fixture
def rows(questions, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"question": each}) + "\n" for each in questions))
    return path


@pytest.fixture
def batch(spine_command, settings, rows, tmp_path):
    """Run a batch: ``batch("out", "--ordered")``; its process and the lines of OUT come back."""

    def run(name, *options, ok=True):
        out = tmp_path / f"{name}.jsonl"
        ran = spine_command(
            "batch", "run", str(rows), "--program", "qa", "--output", str(out), *options, settings=settings, ok=ok
        )
        return ran, read(out)

    return run


def read(out):
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def answers(lines):
    return [line["outputs"]["answer"] for line in lines if line["outputs"]]


def account(spines):
    """Return what batches' accounts have settled and hold, in nano-dollars; no spine has one."""
    assert spines.keys("dspy:v1:budget:batch:*") == [[], [], []]
    client = spines.money.client()
    names = [name for name in client.keys("dspy:v1:budget:batch:*") if name.count(":") == 4]
    return [sum(int(client.hget(name, field) or 0) for name in names) for field in ("settled", "held")]


def test_batches_find_money_and_rows_wherever_they_are(
    batch, expected, spine_worker, spine_command, settings, spines, endpoint
):
    quoted, _ = batch("ordered", "--dry-run")
    assert f"{ROWS}" in quoted.stdout
    spine_worker(settings)
    _, lines = batch("ordered", "--ordered", "--max-usd", "5")
    assert answers(lines) == expected
    assert endpoint.calls() == ROWS
    assert account(spines) == [endpoint.batches.bill().nano_usd, 0]
    ran, again = batch("again")
    assert sorted(answers(again)) == sorted(expected)
    assert f"{ROWS} cached" in ran.stdout
    assert endpoint.calls() == ROWS
    listed = json.loads(spine_command("batch", "list", "--json", settings=settings).stdout)
    assert len(listed) == 2
    assert spines.keys("dspy:v1:job:*") == [[], [], []]


def test_a_batch_without_money_stops_and_goes_on(batch, expected, spine_worker, settings, spines, endpoint):
    spine_worker(settings)
    _, lines = batch("tight", "--max-usd", "0.0001", ok=None)
    assert len(answers(lines)) < ROWS
    _, lines = batch("tight", "--max-usd", "5", ok=None)
    assert sorted(answers(lines)) == sorted(expected)
    assert endpoint.calls() == ROWS
    assert account(spines) == [endpoint.batches.bill().nano_usd, 0]


def test_a_batch_that_is_stopped_leaves_no_job_and_one_that_is_killed_goes_on(
    batch, expected, spine_worker, spines, settings, rows, tmp_path, endpoint
):
    out = tmp_path / "killed.jsonl"
    command = ["batch", "run", str(rows), "--program", "qa", "--output", str(out)]

    def begin():
        env = environment(settings, None, spines.env)
        return LocalProcess("batch", [sys.executable, "-m", "dspyq", *command], ready_line="", env=env, module="dspyq")

    def jobs():
        return [len(keys) for keys in spines.keys("dspy:v1:job:*")]

    with begin() as stopped:
        wait_until(lambda: sum(jobs()) == ROWS, 60, "the jobs")
        assert all(jobs())
        stopped.send(signal.SIGINT)
        stopped.wait(60)
        assert jobs() == [0, 0, 0]
    with begin() as killed:
        wait_until(lambda: sum(jobs()) == ROWS, 60, "the jobs")
        killed.kill()
    spine_worker(settings)
    _, lines = batch("killed")
    assert sorted(answers(lines)) == sorted(expected)
    assert endpoint.calls() == ROWS
    assert account(spines) == [endpoint.batches.bill().nano_usd, 0]


def test_rows_in_the_lanes_of_all_spines_cost_half_and_nothing_twice(
    batch, expected, spine_worker, spines, settings, endpoint
):
    spine_worker(settings)
    _, lines = batch("lane", "--lane", "provider")
    assert sorted(answers(lines)) == sorted(expected)
    bill = endpoint.batches.bill()
    assert (endpoint.calls(), bill.live_nano_usd) == (0, 0)
    assert account(spines) == [bill.nano_usd, 0]
    assert endpoint.batches.counts().billed_twice == []
    wait_until(lambda: spines.keys("dspy:v1:lane:*:lines") == [[], [], []], 30, "lines are left")
    assert all(spines.keys("dspy:v1:lane*:past"))


def test_lanes_of_all_spines_are_shown_and_left_by_a_batch_that_is_cancelled(
    batch, spine_worker, spine_command, spines, settings, endpoint
):
    spine_worker(settings)
    endpoint.batches.script(is_manual=True)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(batch, "lane", "--lane", "provider", ok=False)

        def is_shipped():
            return endpoint.batches.counts().batches == 3

        wait_until(is_shipped, 60, "a shipment of each spine")
        (listed,) = json.loads(spine_command("batch", "list", "--json", settings=settings).stdout)
        shown = json.loads(spine_command("lane", "show", "--json", settings=settings).stdout)
        assert {lane["spine"] for lane in shown} == {server.url for server in spines.servers}
        assert sum(lane["shipped_lines"] for lane in shown) == ROWS
        assert sum(lane["held_nano_usd"] for lane in shown) == account(spines)[1]
        spine_command("batch", "cancel", listed["id"], settings=settings)
        running.result(60)
    endpoint.batches.finish()
    wait_until(lambda: spines.keys("dspy:v1:lane:*:lines") == [[], [], []], 60, "lines are left")
    wait_until(lambda: account(spines) == [endpoint.batches.bill().nano_usd, 0], 30, lambda: str(account(spines)))
