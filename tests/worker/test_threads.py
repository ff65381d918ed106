"""Threads of a worker that others depend on: an odd input ends none of them."""

import fcntl
import gzip
import json
import logging
import os
import queue
import resource
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from dspyq.config.sections import LoggingSection
from dspyq.core.tolerated import tolerated
from dspyq.guards.model import Guards
from dspyq.worker import scheduled_batches
from dspyq.worker.logs.loki import Loki
from dspyq.worker.logs.writer import Writer
from dspyq.worker.monitoring import endpoints
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.experiment_scoring import Sample
from dspyq.worker.monitoring.scoring import Scoring
from tests.support.processes import eventually


def record(text):
    return logging.LogRecord("test", logging.INFO, "", 0, text, (), None)


def render(entry):
    return entry["event"].upper()  # of an event that is no text it raises


@pytest.fixture
def pipe():
    """A pipe that nobody reads until a test does."""
    reader, writer = os.pipe()
    yield SimpleNamespace(reader=reader, writer=writer)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def target_of(descriptor):
    return logging.StreamHandler(SimpleNamespace(fileno=lambda: descriptor))


def test_the_log_goes_on_after_its_sink_was_closed_and_an_entry_that_cannot_be_rendered(pipe):
    dropped = []
    target = target_of(os.dup(pipe.writer))
    os.close(target.stream.fileno())
    writer = Writer(target, render, count_dropped=dropped.append)
    writer.emit(record("lost"))
    writer.flush(5)
    assert sum(dropped) == 1
    target.stream = SimpleNamespace(fileno=lambda: pipe.writer)
    writer._entries.put({"timestamp": 0.0, "level": "info", "event": None})  # noqa: SLF001 - no record makes such a one
    writer.flush(5)
    writer.emit(record("written"))
    writer.flush(5)
    assert sum(dropped) == 2
    assert b"WRITTEN\n" in os.read(pipe.reader, 1000)


def test_the_log_waits_for_a_sink_without_a_reader_beyond_the_1024th_file(pipe, many_files):
    del many_files
    descriptor = fcntl.fcntl(pipe.writer, fcntl.F_DUPFD, 1500)
    os.set_blocking(descriptor, False)
    filled = os.write(descriptor, b"x" * 10**6)
    writer = Writer(target_of(descriptor), render)
    writer.emit(record("late"))
    writer.flush(0.3)
    assert writer.dropped == 0
    read = b""
    while len(read) < filled + len(b"LATE\n"):
        read += os.read(pipe.reader, 10**6)
    assert read.endswith(b"LATE\n")
    writer.flush(5)
    os.close(descriptor)


def test_loki_gets_what_follows_an_entry_that_cannot_be_sent(monkeypatch):
    dropped, sent = [], threading.Event()
    loki = Loki(LoggingSection(loki_url="http://127.0.0.1:9"), render, count_dropped=dropped.append)
    monkeypatch.setattr(loki, "_post", lambda _: sent.set() or 204)
    before = tolerated("loki_thread")
    loki.push([{"timestamp": float("nan"), "level": "info", "event": "odd"}])
    eventually(lambda: sum(dropped) == 1)
    assert tolerated("loki_thread") == before + 1
    loki.push([{"timestamp": time.time(), "level": "info", "event": "good"}])
    assert sent.wait(60)
    loki.close(5)


def pushed_lines(body):
    streams = json.loads(gzip.decompress(body))["streams"]
    return [line for stream in streams for _, line in stream["values"]]


@pytest.mark.parametrize(
    "bad",
    [{"timestamp": float("nan")}, {"timestamp": None}, {"event": None}, {"event": "\ud800"}],
    ids=["no time", "time of another type", "no text", "no UTF-8"],
)
def test_loki_gets_the_entries_beside_one_that_cannot_be_sent(bad, monkeypatch):
    dropped, bodies = [], []
    loki = Loki(LoggingSection(loki_url="http://127.0.0.1:9"), render, count_dropped=dropped.append)
    monkeypatch.setattr(loki, "_post", lambda body: bodies.append(body) or 204)
    good = [{"timestamp": time.time(), "level": "info", "event": name} for name in ("before", "behind")]
    loki.push([good[0], {**good[0], **bad}, good[1]])
    loki.close(5)
    assert [line for body in bodies for line in pushed_lines(body)] == ["BEFORE", "BEHIND"]
    assert dropped == [1]


def test_loki_gets_the_entries_beside_those_it_refuses_and_the_refusal_is_logged_once(monkeypatch, caplog):
    dropped, taken, settled = [], [], threading.Event()
    loki = Loki(LoggingSection(loki_url="http://127.0.0.1:9"), render, count_dropped=dropped.append)

    def post(body):
        lines = pushed_lines(body)
        if any(line.startswith("TOO LONG") for line in lines):
            return 400
        taken.extend(lines)
        if "LAST" in lines:
            settled.set()
        return 204

    monkeypatch.setattr(loki, "_post", post)
    names = [f"good {number}" for number in range(20)]
    names[3], names[11] = "too long a", "too long b"
    loki.push({"timestamp": time.time(), "level": "info", "event": name} for name in [*names, "last"])
    assert settled.wait(60)
    eventually(lambda: sum(dropped) == 2)
    loki.close(5)
    assert taken == [name.upper() for name in [*names, "last"] if name.startswith(("good", "last"))]
    refusals = [str(entry.msg) for entry in caplog.records if "loki_refused" in str(entry.msg)]
    assert len(refusals) == 1


def test_a_loki_that_refuses_everything_gets_a_bounded_number_of_requests(monkeypatch):
    dropped, posts = [], []
    loki = Loki(LoggingSection(loki_url="http://127.0.0.1:9"), render, count_dropped=dropped.append)
    monkeypatch.setattr(loki, "_post", lambda body: posts.append(body) or 400)
    loki.push({"timestamp": time.time(), "level": "info", "event": str(number)} for number in range(1_000))
    eventually(lambda: sum(dropped) == 1_000)
    assert len(posts) <= 200
    loki.close(5)


def test_the_look_at_endpoints_goes_on_after_an_address_that_is_none(monkeypatch):
    looked = []

    def connect(address):
        looked.append(address)
        if len(looked) == 1:
            raise OverflowError("port must be 0-65535")
        return 1.0

    monkeypatch.setattr(endpoints, "_connect", connect)
    monkeypatch.setattr(endpoints, "_LOOK_SECONDS", 0.01)
    watch = endpoints.Endpoints([SimpleNamespace(name="m", api_base="http://127.0.0.1:9/v1")])
    watch.start()
    eventually(lambda: watch.check()["models"] == {"m": "reachable"})
    monkeypatch.setattr(endpoints, "_LOOK_SECONDS", 3600)


def test_a_scheduled_batch_is_watched_to_its_end_though_its_claim_cannot_be_renewed():
    renewals = []

    def renew(claimed):
        renewals.append(claimed)
        raise ValueError("what Redis said is no time")

    supervisor = scheduled_batches.Supervisor(SimpleNamespace(renew=renew, lease_seconds=0.3))
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(7)"], stdin=-1) as process:
        ended = []
        wait = supervisor._wait  # noqa: SLF001 - what it claims has no part in this
        thread = threading.Thread(target=lambda: ended.append(wait("claimed", process)))
        thread.start()
        eventually(lambda: len(renewals) >= 2)
        process.stdin.close()
        thread.join(60)
    assert ended == [7]


def test_a_scheduled_batch_whose_end_cannot_be_recorded_is_watched_no_more():
    def end(*_, **__):
        raise ValueError("what Redis said is no time")

    supervisor = scheduled_batches.Supervisor(SimpleNamespace(end=end, lease_seconds=30))
    claimed = scheduled_batches.ClaimedTime("nightly", "now", "token")
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"], stdin=-1) as process:
        supervisor._running[claimed] = process  # noqa: SLF001 - what it claims has no part in this
        before = tolerated("batch_thread")
        thread = threading.Thread(target=supervisor._watch, args=(None, claimed, process))  # noqa: SLF001 - as above
        thread.start()
        thread.join(30)
    assert supervisor.running_count == 0
    assert tolerated("batch_thread") == before + 1


def test_scores_go_on_after_an_answer_and_a_look_that_failed(configure, settings_file, client):
    settings = configure(settings_file({"programs": {"qa": {"scorers": ["tests.support.user_scorers:is_brief"]}}}))
    program = settings.programs["qa"]
    scoring = Scoring(settings, {"qa.control"}, Guards(settings, client))
    scored, looked = queue.SimpleQueue(), threading.Event()

    def take(_):
        if looked.is_set():
            raise IndexError("an exposure without an arm")
        looked.set()
        return [answered("left by another")]

    def answered(task_id):
        inputs, outputs = {"question": "q"}, {"answer": "a"}
        return Answered(program, program.variants["control"], inputs, outputs, task_id, time.monotonic())

    def add(answer, sample, found, compared, *, is_complete):
        del sample, compared, is_complete
        scored.put((answer.task_id, found))
        raise KeyError("no such score")

    scoring._experiments = SimpleNamespace(  # noqa: SLF001 - as damaged
        seconds_to_look=None, take=take, add=add, sample=lambda _: Sample()
    )
    scoring.start()
    for task_id in ("one", "two"):
        scoring.take(answered(task_id))
    assert {scored.get(timeout=30)[0] for _ in range(3)} == {"one", "two", "left by another"}
