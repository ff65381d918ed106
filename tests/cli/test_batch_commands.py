"""``dspyq batch``: what each command prints and how it ends, with a real worker."""

from __future__ import annotations

import json
import signal
import sys
from types import SimpleNamespace

import pytest

from dspyq.batch import standstill
from dspyq.batch.events import Snapshot
from dspyq.cli.batch.display import _progress
from tests.support.configuration import environment
from tests.support.endpoint import LATE_SECONDS
from tests.support.processes import LocalProcess, wait_until


@pytest.fixture
def rows(tmp_path):
    def write(*rows, name="in.jsonl"):
        path = tmp_path / name
        path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
        return path

    return write


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("shared_worker")
def test_each_row_gets_its_line_in_order_and_bad_ones_state_their_place(dspyq, rows, tmp_path, endpoint):
    file = rows(
        {"custom_id": "a", "inputs": {"question": "one"}},
        {"question": "two"},
        "not json\n",
        {"custom_id": "a", "inputs": {"question": "three"}},
        {"custom_id": "d", "inputs": {"query": "four"}},
        {"custom_id": "e", "inputs": {"question": "one"}},
    )
    out = tmp_path / "out.jsonl"
    done = dspyq("batch", "run", str(file), "--output", str(out), "--ordered", ok=False)
    assert done.returncode == 1
    assert "6 rows: 3 answered (2 computed, 0 cached, 1 joined), 3 failed" in done.stdout
    first, second, broken, twice, unknown, again = read(out)
    assert [line["custom_id"] for line in (first, second, broken, twice, unknown, again)] == [
        "a",
        "2",
        "3",
        "a",
        "d",
        "e",
    ]
    assert list(first) == ["custom_id", "status", "outputs", "error", "metadata"]
    assert (first["status"], first["outputs"], first["error"]) == ("ok", {"answer": "echo:one"}, None)
    assert first["metadata"]["cost_usd"] > 0
    assert not first["metadata"]["cached"]
    assert (again["outputs"], again["metadata"]["cost_usd"]) == (first["outputs"], 0)
    assert again["metadata"]["cache_level"] == "joined"
    assert [line["error"]["type"] for line in (broken, twice, unknown)] == [
        "NotJson",
        "DuplicateCustomId",
        "InvalidInputs",
    ]
    assert [line["error"]["message"].split(":")[0] for line in (broken, twice, unknown)] == [
        "line 3",
        "line 4",
        "line 5",
    ]
    assert broken["outputs"] is None
    assert endpoint.calls() == 2
    assert second["outputs"] == {"answer": "echo:two"}


@pytest.mark.usefixtures("shared_worker")
def test_the_same_command_again_changes_nothing_and_costs_nothing(dspyq, rows, tmp_path, endpoint):
    file, out = rows({"question": "one"}, {"question": "two"}), tmp_path / "out.jsonl"
    dspyq("batch", "run", str(file), "--output", str(out))
    before = out.read_bytes()
    dspyq("batch", "run", str(file), "--output", str(out))
    assert out.read_bytes() == before
    assert endpoint.calls() == 2


@pytest.mark.usefixtures("shared_worker")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file, _: file.write_text('{"question": "other"}\n'), "IN has changed"),
        (lambda _, out: out.with_name("out.jsonl.journal").unlink(), "has no journal"),
        (lambda _, out: out.write_text(""), "holds 0 bytes, less than"),
        (lambda file, _: file.unlink(), "in.jsonl"),
    ],
)
def test_what_cannot_go_on_is_refused_in_one_line(dspyq, rows, tmp_path, change, said):
    file, out = rows({"question": "one"}), tmp_path / "out.jsonl"
    dspyq("batch", "run", str(file), "--output", str(out))
    change(file, out)
    done = dspyq("batch", "run", str(file), "--output", str(out), ok=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--window", "25:00-1"], "'25:00-1' is no span of the day"),
        (["--window", "22:00-06:00", "--timezone", "Nowhere"], "there is no timezone 'Nowhere'"),
    ],
)
def test_hours_that_are_none_are_a_mistake_of_usage(dspyq, rows, tmp_path, arguments, said):
    refused = dspyq("batch", "run", str(rows({"question": "q"})), "--output", str(tmp_path / "o"), *arguments, ok=False)
    assert refused.returncode == 2
    assert said in " ".join(refused.stderr.replace("│", "").split())


@pytest.mark.usefixtures("shared_worker")
def test_another_option_than_before_is_refused(dspyq, rows, tmp_path):
    file, out = rows({"question": "one"}), tmp_path / "out.jsonl"
    dspyq("batch", "run", str(file), "--output", str(out))
    done = dspyq("batch", "run", str(file), "--output", str(out), "--ordered", ok=False)
    assert (done.returncode, "--ordered was False and is True" in done.stderr) == (2, True)


def test_without_redis_it_ends_with_2(dspyq, rows, tmp_path):
    file = rows({"question": "one"})
    out = tmp_path / "out.jsonl"
    done = dspyq("batch", "run", str(file), "--output", str(out), redis_url="redis://127.0.0.1:1/0", ok=False)
    assert done.returncode == 2
    assert "DSPYQ_REDIS_URL" in done.stderr
    assert not out.exists()


class Batch:
    """``dspyq batch run`` in a process of its own, its events read as they come."""

    def __init__(self, environment, *arguments):
        command = [sys.executable, "-m", "dspyq", "batch", "run", *arguments, "--json"]
        self.process = LocalProcess("batch", command, ready_line="", env=environment, module="dspyq")
        self._lines_read = 0

    def until(self, name, is_it=lambda _: True):
        def find():
            has_ended = not self.process.is_running
            for line in self.process.logs().splitlines(keepends=True)[self._lines_read :]:
                if not line.endswith("\n"):
                    break
                self._lines_read += 1
                event = json.loads(line) if line.startswith("{") else {}
                if event.get("event") == name and is_it(event):
                    return event
            assert not has_ended, f"it ended before {name}:\n{self.process.logs()}"
            return None

        return wait_until(find, LATE_SECONDS, lambda: f"{name} in\n{self.process.logs()}")


@pytest.fixture
def start_batch(session_settings_file, redis_server, endpoint, nursery):
    del endpoint, nursery  # started and reset
    batches = []

    def start(*arguments, env=None):
        batches.append(Batch(environment(session_settings_file, redis_server.url, env), *map(str, arguments)))
        return batches[-1]

    yield start
    for batch in batches:
        batch.process.kill()
        batch.process.close()


def waiting(redis_server):
    return redis_server.client().zcard("dspy:v1:queue:qa.control")


@pytest.mark.usefixtures("shared_worker")
def test_a_batch_is_paused_resumed_and_cancelled_from_another_shell(
    dspyq, start_batch, rows, tmp_path, endpoint, redis_server
):
    endpoint.hold()
    out = tmp_path / "out.jsonl"
    batch = start_batch(rows(*({"question": str(number)} for number in range(100))), "--output", out)
    batch_id = batch.until("started")["batch_id"]
    endpoint.wait_for_calls(8)
    wait_until(lambda: waiting(redis_server) > 50, LATE_SECONDS, "the others to wait")

    dspyq("batch", "pause", batch_id[:6])
    assert batch.until("paused")["recalled"] > 50
    assert waiting(redis_server) == 0
    endpoint.release()
    endpoint.wait_until_idle()
    listed = json.loads(dspyq("batch", "list", "--json").stdout)
    assert [(row["id"], row["state"], row["wanted"]) for row in listed] == [(batch_id, "paused", "pause")]

    calls = endpoint.calls()
    assert calls < 50
    endpoint.hold()
    dspyq("batch", "resume", batch_id)
    batch.until("resumed")
    wait_until(lambda: waiting(redis_server) > 50, LATE_SECONDS, "what was taken back to be asked again")
    endpoint.wait_for_calls(calls + 8)
    dspyq("batch", "cancel", batch_id)
    outcome = batch.until("finished")["outcome"]
    endpoint.release()
    assert (outcome["state"], outcome["exit_code"]) == ("cancelled", 1)
    assert batch.process.wait(LATE_SECONDS) == 1
    assert waiting(redis_server) == 0
    assert outcome["reconciliation"]["difference_nano_usd"] == 0

    done = dspyq("batch", "run", str(tmp_path / "in.jsonl"), "--output", str(out))
    assert "100 rows: 100 answered" in done.stdout
    assert len({line["custom_id"] for line in read(out)}) == 100


def test_a_batch_and_its_status_name_what_its_rows_wait_for(dspyq, start_batch, rows, tmp_path):
    batch = start_batch(rows({"question": "one"}), "--output", tmp_path / "out.jsonl")
    batch_id = batch.until("started")["batch_id"]
    shown = batch.until("progress", lambda event: event["snapshot"]["waits_for"])["snapshot"]
    assert shown["waits_for"].startswith("no worker takes from its queue, qa.control: start one")
    assert json.loads(dspyq("batch", "status", batch_id, "--json").stdout)["waits_for"] == shown["waits_for"]
    assert "no worker takes from" in " ".join(dspyq("batch", "status", batch_id).stdout.split())
    line = _progress(Snapshot(**shown))
    assert line.endswith(f" · waiting: {shown['waits_for']}")


def test_what_rows_wait_for_is_looked_up_only_while_none_is_done_and_every_few_seconds(monkeypatch):
    looked_up = []
    now = [100.0]
    monkeypatch.setattr(standstill, "time", SimpleNamespace(monotonic=lambda: now[0]))
    batch = standstill.Standstill(lambda task_id: looked_up.append(task_id) or "no worker")
    for second, done, in_flight, reason in [
        (0, 0, ["a", "b"], ""),
        (4, 0, ["a", "b"], ""),
        (5, 0, ["a", "b"], "no worker"),
        (9, 0, ["a", "b"], "no worker"),
        (10, 1, ["b"], ""),
        (14, 1, ["b"], ""),
        (20, 1, [], ""),
    ]:
        now[0] = 100.0 + second
        assert batch.reason(done, in_flight) == reason
    assert looked_up == ["a"]


def test_a_dead_batch_is_shown_so_and_cancelling_it_frees_what_waits_but_not_what_others_wait_for(
    dspyq, start_batch, rows, tmp_path, redis_server, predict
):
    batch = start_batch(rows(*({"question": str(number)} for number in range(20))), "--output", tmp_path / "out.jsonl")
    batch_id = batch.until("started")["batch_id"]
    wait_until(lambda: waiting(redis_server) == 20, LATE_SECONDS, "all rows to wait")
    job = predict.delay(question="7")
    batch.process.kill()
    redis_server.client().hset(f"dspy:v1:batch:{batch_id}", "seen_at", 1)
    shown = dspyq("batch", "status", batch_id)
    assert "run the same command again" in shown.stdout
    assert "not running" in shown.stdout
    dspyq("batch", "cancel", batch_id)
    assert redis_server.client().zrange("dspy:v1:queue:qa.control", 0, -1) == [job.id]
    assert json.loads(dspyq("batch", "status", batch_id, "--json").stdout)["state"] == "cancelled"


@pytest.mark.usefixtures("shared_worker")
def test_a_signal_takes_back_what_has_not_begun_and_the_same_command_goes_on(
    dspyq, start_batch, rows, tmp_path, endpoint, redis_server
):
    endpoint.hold()
    out = tmp_path / "out.jsonl"
    batch = start_batch(rows(*({"question": str(number)} for number in range(40))), "--output", out)
    endpoint.wait_for_calls(8)
    second = dspyq("batch", "run", str(tmp_path / "in.jsonl"), "--output", str(out), ok=False)
    assert second.returncode == 2
    assert f"(process {batch.process.pid} on " in second.stderr
    wait_until(lambda: waiting(redis_server) > 20, LATE_SECONDS, "the others to wait")
    batch.process.send(signal.SIGTERM)
    wait_until(lambda: waiting(redis_server) == 0, LATE_SECONDS, "them to be taken back")
    endpoint.release()
    outcome = batch.until("finished")["outcome"]
    assert outcome["state"] == "stopped"
    assert batch.process.wait(LATE_SECONDS) == 1
    assert len(read(out)) == outcome["ok"] >= 8
    dspyq("batch", "run", str(tmp_path / "in.jsonl"), "--output", str(out))
    assert len({line["custom_id"] for line in read(out)}) == 40
    assert endpoint.calls() == 40


@pytest.mark.usefixtures("shared_worker")
def test_two_batches_with_the_same_rows_pay_for_each_question_once(start_batch, rows, tmp_path, endpoint):
    file = rows(*({"question": str(number % 30)} for number in range(40)))
    batches = [start_batch(file, "--output", tmp_path / f"out-{number}.jsonl") for number in range(2)]
    outcomes = [batch.until("finished")["outcome"] for batch in batches]
    assert [outcome["exit_code"] for outcome in outcomes] == [0, 0]
    lines = [line for number in range(2) for line in read(tmp_path / f"out-{number}.jsonl")]
    assert len([line for line in lines if line["metadata"]["cost_usd"]]) == endpoint.calls() == 30
    assert sum(not line["metadata"]["cached"] for line in lines) == 30
    assert all(outcome["reconciliation"]["difference_nano_usd"] == 0 for outcome in outcomes)


@pytest.mark.usefixtures("shared_worker")
def test_the_limit_ends_the_batch_and_a_higher_one_goes_on(dspyq, rows, tmp_path, endpoint):
    file, out = rows(*({"question": str(number)} for number in range(30))), tmp_path / "out.jsonl"
    command = ("batch", "run", str(file), "--output", str(out))
    done = dspyq(*command, "--max-usd", "0.0045", "--json", ok=False)
    outcome = json.loads(done.stdout.splitlines()[-1])["outcome"]
    assert (done.returncode, outcome["state"], outcome["failed_by_type"]) == (1, "limited", {})
    assert "run again with a higher --max-usd" in outcome["remark"]
    assert 0 < outcome["spent_usd"] <= 0.0045
    assert outcome["reconciliation"]["difference_nano_usd"] == 0
    done = dspyq(*command, "--max-usd", "1")
    assert "30 rows: 30 answered" in done.stdout
    assert endpoint.calls() == 30


def test_paired_rows_are_asked_of_every_variant(dspyq, worker, settings_file, rows, tmp_path, endpoint):
    settings = settings_file(challenger=0.5)
    worker(settings)
    file, out = rows({"question": "one"}, {"query": "two"}), tmp_path / "out.jsonl"
    dspyq("batch", "run", str(file), "--output", str(out), "--paired", "--ordered", settings=settings, ok=False)
    found = [(line["custom_id"], line["status"], line["metadata"]["variant"]) for line in read(out)]
    assert found == [
        ("1", "ok", "control"), ("1", "ok", "challenger"), ("2", "error", "control"), ("2", "error", "challenger"),
    ]  # fmt: skip
    assert endpoint.calls() == 2


@pytest.mark.usefixtures("shared_worker")
def test_a_batch_of_a_tenant_is_that_tenant_s_in_its_answers_its_books_and_its_account(dspyq, rows, tmp_path, endpoint):
    file = rows({"question": "of a tenant, by batch"})

    def run(name, *arguments, ok=True):
        return dspyq("batch", "run", str(file), "--output", str(tmp_path / name), *arguments, ok=ok)

    run("acme.jsonl", "--tenant", "acme")
    cost = read(tmp_path / "acme.jsonl")[0]["metadata"]["cost_usd"]
    (books,) = json.loads(dspyq("costs", "--by", "tenant", "--json").stdout)["costs"]
    assert (books["tenant"], books["calls"], books["billed_usd"]) == ("acme", 1, pytest.approx(cost))
    (daily, _) = json.loads(dspyq("budget", "show", "--tenant", "acme", "--json").stdout)
    assert daily["settled_usd"] == pytest.approx(cost)
    assert daily["held_usd"] == 0
    # Neither another tenant nor a call of none is served its answer.
    run("other.jsonl", "--tenant", "other")
    run("nobody.jsonl")
    assert endpoint.calls() == 3
    quote = ("--dry-run", "--tenant", "acme", "--json")
    assert json.loads(run("quoted.jsonl", *quote).stdout)["cached"] == 1
    run("again.jsonl", "--tenant", "acme")
    assert read(tmp_path / "again.jsonl")[0]["metadata"]["cached"] is True
    # The tenant is part of what the batch is.
    assert "--tenant was acme and is other" in run("acme.jsonl", "--tenant", "other", ok=False).stderr
    assert "a tenant's name" in run("wrong.jsonl", "--tenant", "a b", ok=False).stderr
