"""``dspyq lane``, quotes of lanes, and what lists of batches show of one."""

import json
import re
import sys
from contextlib import ExitStack, closing

import pytest

from dspyq.batch.quotes.estimate import Interval
from dspyq.batch.quotes.lanes import LaneQuote, quote_hour
from tests.support.configuration import environment
from tests.support.processes import LocalProcess, wait_until


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{number}"}) + "\n" for number in range(5)))
    return path


def verdict(p50, p95, *, rounds=2, seconds=36_000.0, live=600.0):
    cost = Interval(0.9, 1.0, 1.1)
    lanes = [
        LaneQuote("live", cost_usd=cost.scaled(2)),
        LaneQuote("provider", "", cost, rounds, rounds, 1000, p50, p95),
        LaneQuote("flex", cost_usd=cost),
    ]
    return quote_hour(lanes, "provider", ("07:00", "UTC"), seconds, live)


def test_a_quote_states_by_the_history_whether_an_hour_holds_and_what_it_costs_at_best_and_at_worst():
    assert verdict(3600, 7200).verdict == "holds"
    assert verdict(3600, 86_400).verdict == "goes live in part"
    assert verdict(43_200, 86_400).verdict == "goes live"
    assert verdict(None, None).verdict == "unknown"
    hour = verdict(60, 120, seconds=300, live=600.0)
    assert hour.verdict == "cannot be kept"
    assert (hour.best_usd, hour.worst_usd) == (1.0, 3.0)


def test_a_dry_run_quotes_all_lanes_and_asks_nothing(dspyq, rows, lane_settings, endpoint, client):
    past = {"name": "s", "state": "closing", "lines": 5, "filled_at": 1.0, "submitted_at": 10.0}
    for number in range(1, 21):
        client.rpush("dspy:v1:lane:control:past", json.dumps({**past, "ended_at": 10.0 + 60 * number}))
    arguments = [
        "batch",
        "run",
        str(rows),
        "--program",
        "qa",
        "--dry-run",
        "--lane",
        "provider",
        "--finish-by",
        "07:00",
    ]
    quote = json.loads(dspyq(*arguments, "--json", settings=lane_settings()).stdout)
    live, provider, flex = quote["lanes"]
    assert [each["lane"] for each in quote["lanes"]] == ["live", "provider", "flex"]
    assert provider["cost_usd"]["high"] == pytest.approx(live["cost_usd"]["high"] / 2)
    assert (provider["rounds"], provider["shipments"]) == (1, 1)
    assert (provider["p50_seconds"], provider["p95_seconds"]) == (600, 1140)
    assert provider["enqueued_tokens"] > 0
    assert flex["fault"] == ""
    assert quote["hour"]["worst_usd"] == pytest.approx(live["cost_usd"]["high"] * 1.5)
    shown = dspyq(*arguments, settings=lane_settings()).stdout
    assert "Done by 07:00 UTC" in shown
    assert endpoint.calls() == 0
    assert "timeout_seconds is 10" in dspyq(*arguments[:-4], "--lane", "flex", settings=lane_settings()).stdout


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_what_has_no_lane_is_refused_in_one_line_and_so_is_its_quote(dspyq, rows, lane_settings, arguments):
    closed = {"signature": "question -> answer", "class": "tests.support.dspy_programs:TwoSteps"}
    settings = lane_settings({
        "models": {"plain": {"model": "openai/plain", "api_base": "http://127.0.0.1:1/v1"}},
        "programs": {
            "closed": closed | {"variants": {"control": {"model": "control"}}},
            "plain": {"signature": "question -> answer", "variants": {"control": {"model": "plain"}}},
        },
    })  # fmt: skip
    for options, told in (
        (["--program", "closed", "--lane", "provider"], "state programs.closed.lanes"),
        (["--program", "plain", "--lane", "provider"], "models.plain.batch: this model has no batch interface"),
        (["--program", "qa", "--finish-by", "07:00"], "--finish-by is for batches with a lane"),
        (["--program", "qa", "--lane", "provider", "--finish-by", "7am"], "'7am' is no hour of the day"),
    ):
        command = ["batch", "run", str(rows), "--output", str(rows.with_suffix(".out")), *options, *arguments]
        done = dspyq(*command, settings=settings, ok=False)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_lanes_are_shown_flushed_and_cancelled_by_name(dspyq, lane_settings):
    settings = lane_settings()
    (lane,) = json.loads(dspyq("lane", "show", "--json", settings=settings).stdout)
    assert (lane["model"], lane["open_lines"], lane["held_nano_usd"], lane["shipments"]) == ("control", 0, 0, [])
    assert "0 lines wait for a shipment" in dspyq("lane", "show", "control", settings=settings).stdout
    assert "0" in dspyq("lane", "flush", "control", settings=settings).stdout
    for arguments, told in (
        (["show", "fast"], "there is no [models.fast] table; with a lane: control"),
        (["flush", "fast"], "there is no [models.fast] table"),
        (["cancel", "dspyq-1"], "there is no shipment 'dspyq-1': see dspyq lane show"),
    ):
        done = dspyq("lane", *arguments, settings=settings, ok=False)
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def begin(rows, lane_settings, redis_server):
    """Begin a batch in the provider's lane, in a process of its own."""
    with ExitStack() as running:

        def begin(out):
            arguments = ["batch", "run", str(rows), "--program", "qa", "--output", str(out), "--lane", "provider"]
            env = environment(lane_settings(), redis_server.url)
            command = [sys.executable, "-m", "dspyq", *arguments]
            batch = LocalProcess("batch", command, ready_line="batch ", env=env, module="dspyq")
            return running.enter_context(closing(batch))

        yield begin


@pytest.fixture
def listed(dspyq, lane_settings):
    """Wait until the latest batch has these rows asleep in shipments, and return what lists show of it."""

    def listed(asleep, shipments):
        def found():
            batches = json.loads(dspyq("batch", "list", "--json", settings=lane_settings()).stdout)
            is_so = batches and (batches[0].get("asleep"), batches[0].get("shipments")) == (asleep, shipments)
            return batches[0] if is_so else None

        return wait_until(found, 60, f"{asleep} rows asleep in {shipments} shipments")

    return listed


@pytest.mark.usefixtures("lane_worker")
def test_a_cancelled_batch_has_its_shipment_cancelled_and_holds_nothing(
    dspyq, tmp_path, lane_settings, endpoint, client, begin, listed
):
    endpoint.batches.script(is_manual=True)
    batch = begin(tmp_path / "out.jsonl")
    facts = listed(5, 1)
    dspyq("batch", "cancel", facts["id"], settings=lane_settings())
    wait_until(lambda: not batch.is_running, 30, "its end")
    account = f"dspy:v1:budget:batch:{facts['id']}"
    wait_until(lambda: client.keys("dspy:v1:lane:*:lines") == [], 60, "its shipment to end")
    assert [each["state"] for each in endpoint.batches.list()] == ["cancelled"]
    assert int(client.hget(account, "held") or 0) == 0
    assert int(client.hget(account, "settled") or 0) == endpoint.batches.bill().nano_usd == 0


@pytest.mark.usefixtures("lane_worker")
def test_shipments_of_a_paused_batch_go_on_and_are_collected(dspyq, tmp_path, lane_settings, endpoint, begin, listed):
    endpoint.batches.script(is_manual=True)
    out = tmp_path / "out.jsonl"
    begin(out)
    facts = listed(5, 1)
    dspyq("batch", "pause", facts["id"], settings=lane_settings())

    def state():
        return json.loads(dspyq("batch", "status", facts["id"], "--json", settings=lane_settings()).stdout)["state"]

    wait_until(lambda: state() == "paused", 30, "the pause")
    endpoint.batches.finish()
    wait_until(lambda: out.exists() and len(out.read_text().splitlines()) == 5, 60, "its rows")
    assert endpoint.batches.counts().lines_billed == 5


@pytest.mark.journey
@pytest.mark.usefixtures("lane_worker")
def test_a_batch_that_sleeps_is_listed_with_its_shipment_which_can_be_cancelled(
    dspyq, tmp_path, lane_settings, endpoint, begin, listed
):
    endpoint.batches.script(is_manual=True, times=1)
    settings, out = lane_settings(), tmp_path / "out.jsonl"
    batch = begin(out)
    facts = listed(5, 1)
    assert (facts["lane"], facts["round"]) == ("provider", 1)
    assert "5 asleep in 1 shipment," in facts["waits_for"]
    shown = json.loads(dspyq("lane", "show", "control", "--json", settings=settings).stdout)[0]
    assert shown["shipped_lines"] == 5
    assert shown["held_nano_usd"] > 0
    name = shown["shipments"][0]["name"]
    for columns in ("80", "100", "200"):
        lines = dspyq("lane", "show", settings=settings, env={"COLUMNS": columns}).stdout.splitlines()
        (row,) = [line for line in lines if line.startswith(name[:14])]  # unfolded
        assert re.search(rf"{name[:14]} +\w+ +5 ", row)
        assert len(row) <= int(columns)
        assert ("Without id" in lines[-1]) == (columns != "200")
    dspyq("lane", "cancel", name[:12], settings=settings)
    wait_until(lambda: out.exists() and len(out.read_text().splitlines()) == 5, 60, "its rows in another shipment")
    wait_until(lambda: not batch.is_running, 30, "its end")
    report = tmp_path / "report.html"
    dspyq("batch", "report", str(out), "--html", str(report), settings=settings)
    assert "Shipments" in report.read_text()


@pytest.mark.journey
@pytest.mark.usefixtures("lane_worker")
def test_replies_that_a_provider_still_has_are_salvaged_after_redis_was_lost_and_deleted_ones_are_named(
    dspyq, tmp_path, lane_settings, endpoint, redis_server, begin, listed, run_lane
):
    settings, out = lane_settings(), tmp_path / "out.jsonl"
    run_lane("qa", 1, name="collected", question="an earlier question")
    wait_until(lambda: endpoint.batches.counts().files_left == 0, 60, "its files to be deleted")
    endpoint.batches.script(is_manual=True, times=1)
    batch = begin(out)
    listed(5, 1)
    batch.kill()
    redis_server.flush()
    endpoint.batches.finish()
    found = json.loads(dspyq("lane", "salvage", "control", "--json", settings=settings).stdout)
    assert (found["batches"], found["replies"], found["running"], found["unreadable"]) == (1, 5, 0, 0)
    collected, _ = endpoint.batches.list()
    assert found["gone"] == [collected["name"]]
    assert "1 batches have no results any more" in dspyq("lane", "salvage", "control", settings=settings).stdout
    out.unlink(missing_ok=True)
    out.with_name("out.jsonl.journal").unlink()
    again = begin(out)
    wait_until(lambda: not again.is_running, 60, "its end")
    assert len(out.read_text().splitlines()) == 5
    assert (endpoint.batches.counts().lines_billed, endpoint.calls()) == (6, 0)
