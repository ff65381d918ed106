"""Batches over several spines: each row has its line once, and the account is the endpoint's bill."""

import json
import re
import signal
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspyq.client.predict import process_predict
from tests.lane.conftest import LANES
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.processes import LocalProcess, wait_until
from tests.support.spine_questions import some_of_each

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]

ROWS = 24


@pytest.fixture
def settings(tmp_path, endpoint):
    document = merged(merged(default_document(endpoint.url), LANES), {"metrics": {"port": 0}})
    return write_settings(tmp_path / "batches.toml", document)


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


def shipped_lines(worker):
    """Return what the worker's metric shows of shipped lines."""
    url = re.findall(r"metrics are served at (http\S+)", worker.logs())[-1]
    with urllib.request.urlopen(url, timeout=10) as page:  # noqa: S310 - our own
        text = page.read().decode()
    return float(re.findall(r'^dspy_lane_lines{model="control",state="shipped"} (\S+)', text, re.MULTILINE)[0])


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
    worker = spine_worker(settings)
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
        wait_until(lambda: shipped_lines(worker) == ROWS, 30, lambda: f"the metric shows {shipped_lines(worker)}")
        spine_command("batch", "cancel", listed["id"], settings=settings)
        running.result(60)
    endpoint.batches.finish()
    wait_until(lambda: spines.keys("dspy:v1:lane:*:lines") == [[], [], []], 60, "lines are left")
    wait_until(lambda: account(spines) == [endpoint.batches.bill().nano_usd, 0], 30, lambda: str(account(spines)))


def begin_batch(settings, spines, rows, out, *options):
    command = [sys.executable, "-m", "dspyq", "batch", "run", str(rows), "--output", str(out), *options]
    env = environment(settings, None, spines.env)
    return LocalProcess("batch", command, ready_line="", env=env, module="dspyq")


def jobs(spines):
    return [len(keys) for keys in spines.keys("dspy:v1:job:*")]


def test_a_paused_batch_recalls_its_jobs_from_every_spine_and_a_cancelled_one_frees_them(
    spine_worker, spine_command, spines, settings, rows, tmp_path, endpoint, expected
):
    out = tmp_path / "paused.jsonl"

    def listed():
        return json.loads(spine_command("batch", "list", "--json", settings=settings).stdout)

    def pause():
        wait_until(lambda: sum(jobs(spines)) == ROWS, 60, "the jobs")
        assert all(jobs(spines))
        spine_command("batch", "pause", listed()[0]["id"], settings=settings)
        wait_until(lambda: jobs(spines) == [0, 0, 0], 60, lambda: f"jobs: {jobs(spines)}")

    with begin_batch(settings, spines, rows, out, "--program", "qa") as running:
        pause()
        spine_command("batch", "cancel", listed()[0]["id"], settings=settings)
        running.wait(60)
        assert read(out) == []
    with begin_batch(settings, spines, rows, out, "--program", "qa") as running:
        pause()
        spine_worker(settings)
        spine_command("batch", "resume", listed()[0]["id"], settings=settings)
        running.wait(60)
    assert sorted(answers(read(out))) == sorted(expected)
    assert endpoint.calls() == ROWS
    assert account(spines) == [endpoint.batches.bill().nano_usd, 0]


def test_a_batch_whose_runner_is_gone_is_cancelled_with_its_jobs_on_every_spine(
    spine_command, spines, settings, rows, tmp_path
):
    with begin_batch(settings, spines, rows, tmp_path / "gone.jsonl", "--program", "qa") as running:
        wait_until(lambda: sum(jobs(spines)) == ROWS, 60, "the jobs")
        running.kill()
    (batch,) = json.loads(spine_command("batch", "list", "--json", settings=settings).stdout)
    spines.money.client().hset(f"dspy:v1:batch:{batch['id']}", "seen_at", 1)  # as long ago as a runner's lease
    spine_command("batch", "cancel", batch["id"], settings=settings)
    assert jobs(spines) == [0, 0, 0]


def test_a_paired_batch_asks_both_variants_on_their_spines_and_compares_each_row(
    spine_worker, spine_command, spines, settings_file, configure_spines, rows, tmp_path, endpoint
):
    path = settings_file({"programs": {"qa": {"scorers": ["tests.support.user_scorers:is_brief"]}}}, challenger=0.5)
    configure_spines(path)
    spine_worker(path)
    out = tmp_path / "paired.jsonl"
    spine_command("batch", "run", str(rows), "--paired", "--score", "--output", str(out), settings=path)
    lines = read(out)
    variants = [line["metadata"]["variant"] for line in lines]
    assert (variants.count("control"), variants.count("challenger")) == (ROWS, ROWS)
    assert all(len(line["metadata"]["scores"]) == 1 for line in lines)
    assert endpoint.calls() == 2 * ROWS
    assert all(spines.keys("dspy:v1:prediction:*"))
    page = spine_command("batch", "report", str(out), settings=path).stdout
    assert f"on {ROWS} rows" in page


def finish_until(done, endpoint):
    """Let the provider's batches end, later ones too, until something is done."""

    def is_done():
        endpoint.batches.finish()
        return done()

    wait_until(is_done, 120, "the end")


def test_lanes_of_all_spines_together_leave_half_of_the_day_to_others(
    spine_worker, configure_spines, spines, settings_file, rows, tmp_path, endpoint, expected
):
    path = settings_file(merged(LANES, {"budget": {"daily_usd": 0.02}}))
    configure_spines(path)
    spine_worker(path)
    endpoint.batches.script(is_manual=True)
    out = tmp_path / "shared.jsonl"
    with begin_batch(path, spines, rows, out, "--program", "qa", "--lane", "provider") as running:
        endpoint.batches.wait_for_batches(1)
        wait_until(lambda: account(spines)[1] > 0, 30, "held money")

        def held_of_day():
            (name,) = spines.money.keys("dspy:v1:budget:all:daily:*")
            return int(spines.money.client().hget(name, "held") or 0)

        assert 0 < held_of_day() <= 0.01 * 1e9
        live = process_predict().apply_async(kwargs={"question": "now"}, program="qa")
        assert live.get(timeout=60).answer == "echo:now"
        finish_until(lambda: held_of_day() <= 0.01 * 1e9 and not running.is_running, endpoint)
    assert sorted(answers(read(out))) == sorted(expected)
    assert account(spines) == [endpoint.batches.bill().batch_nano_usd, 0]


def test_lanes_of_all_spines_together_keep_within_the_tokens_that_may_wait_at_the_provider(
    spine_worker, spine_command, spines, settings_file, rows, tmp_path, endpoint, expected
):
    most_tokens = 2_700  # of some 5,100 that all rows have
    path = settings_file(merged(LANES, {"models": {"control": {"batch_enqueued_tokens": most_tokens}}}))
    spine_worker(path)
    endpoint.batches.script(is_manual=True)
    out = tmp_path / "quota.jsonl"
    with begin_batch(path, spines, rows, out, "--program", "qa", "--lane", "provider") as running:

        def lanes():
            return json.loads(spine_command("lane", "show", "--json", settings=path).stdout)

        def is_full():
            found = lanes()
            return sum(lane["open_lines"] + lane["shipped_lines"] for lane in found) == ROWS and all(
                any(each["state"] == "submitted" for each in lane["shipments"]) for lane in found
            )

        wait_until(is_full, 60, lambda: f"{lanes()}")
        shipments = [each for lane in lanes() for each in lane["shipments"]]
        tokens = sum(each["size_bytes"] for each in shipments) / 4
        a_line = tokens / sum(each["lines"] for each in shipments)
        assert tokens <= most_tokens + 3 * a_line, "a lane with room left takes one line more"
        assert sum(lane["open_lines"] for lane in lanes()) > 0
        finish_until(lambda: not running.is_running, endpoint)
    assert sorted(answers(read(out))) == sorted(expected)
    assert endpoint.batches.counts().billed_twice == []


def test_replies_at_the_provider_are_salvaged_after_one_spine_has_lost_its_data(
    spine_worker, spine_command, spines, settings, rows, tmp_path, endpoint, expected
):
    endpoint.batches.script(is_manual=True)
    out = tmp_path / "salvaged.jsonl"
    options = "--program", "qa", "--lane", "provider"
    worker = spine_worker(settings)
    with begin_batch(settings, spines, rows, out, *options) as running:
        wait_until(lambda: endpoint.batches.counts().batches == 3, 60, "a shipment of each spine")
        running.kill()
    worker.kill()
    spines.servers[1].flush()
    endpoint.batches.finish()
    told = json.loads(spine_command("lane", "salvage", "control", "--json", settings=settings).stdout)
    assert (told["replies"], told["running"], told["unreadable"]) == (ROWS, 0, 0)
    assert all(spines.keys("dspy:v1:lane:control:salvaged"))
    spine_worker(settings)
    with begin_batch(settings, spines, rows, out, *options) as running:
        running.wait(120)
    assert sorted(answers(read(out))) == sorted(expected)
    assert (endpoint.batches.counts().lines_billed, endpoint.calls()) == (ROWS, 0)
