"""A worker's log: lines of JSON, an entry for each prediction, and no prediction that waits for a reader."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dspyq.config.secrets import process_secrets
from dspyq.config.settings import load_settings
from dspyq.core.events import Event
from dspyq.worker.logs.loki import Loki
from dspyq.worker.logs.render import console_renderer, json_renderer
from dspyq.worker.logs.writer import CAPACITY, Writer
from tests.support.collector import Collector
from tests.support.configuration import default_document, environment, merged, write_settings
from tests.support.processes import wait_until
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
FIELDS = (
    *("timestamp", "request_id", "service", "model", "program", "variant", "input_hash", "cache_hit", "cache_level"),
    *("duration_ms", "tokens", "cost_usd", "status", "error"),
)
CELERY = str(Path(sys.executable).with_name("celery"))


def ask():
    """Run in a producer's process: predictions of every fate, each with a request id of its own."""
    import structlog

    from dspyq import predict
    from dspyq.tracing.propagation import request_context
    from tests.support import indiscreet

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with request_context({"Traceparent": trace}):
        jobs = [predict.apply_async(kwargs={"question": "traced"}, program="qa")]
    jobs[0].get(timeout=20)
    with structlog.contextvars.bound_contextvars(request_id="bound"):
        jobs.append(predict.apply_async(kwargs={"question": "traced"}, program="qa", countdown=0.01))
    with request_context(request_id="talks"):
        jobs.append(predict.apply_async(kwargs={"question": "q"}, program="talkative"))
    with request_context(request_id="raises"):
        jobs.append(predict.apply_async(kwargs={"question": "raise a canary"}, program="talkative"))
    with request_context({"X-Request-ID": "fails"}):
        jobs.append(predict.apply_async(kwargs={"question": "broken"}, program="qa"))
    jobs.append(predict.apply_async(kwargs={"question": "feverish"}, program="qa", variant="ill", request_id="parked"))
    for job in jobs:
        job.get(timeout=30, propagate=False)
    indiscreet.echo.delay("a user's own task").get(timeout=20)
    return [job.id for job in jobs]


@pytest.fixture(scope="module")
def story(session_endpoint, tmp_path_factory):
    """The log of one worker, as entries, of predictions of every fate; and what it pushed to Loki."""
    session_endpoint.reset()
    error = {"error": {"message": "failed-canary", "type": "invalid_request_error", "code": "invalid"}}
    session_endpoint.script(containing="broken", status=400, body=json.dumps(error))
    session_endpoint.script(containing="feverish", status=503, times=1)
    with ExitStack() as running:
        redis_server = running.enter_context(RedisServer())
        loki = running.enter_context(Collector())
        document = default_document(session_endpoint.url)
        signature = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
        variants = {"control": {"model": "control", "weight": 1}, "ill": {"model": "ill", "weight": 0}}
        changes = {
            "models": {"ill": document["models"]["control"]},
            "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 0.5},
            "programs": {
                "qa": {"variants": variants},
                "talkative": {**signature, "class": "tests.support.talkative_program:Talkative"},
            },
            "workers": {"imports": ["tests.support.indiscreet"]},
            "logging": {"service_name": "shop", "loki_url": loki.url, "loki_authorization_env": "LOKI_AUTHORIZATION"},
        }
        settings = write_settings(tmp_path_factory.mktemp("logs") / "dspyq.toml", merged(document, changes))
        env = environment(settings, redis_server.url, {"LOKI_AUTHORIZATION": "Bearer loki-canary"})
        worker = running.enter_context(Worker(env))
        worker.ready()
        producer = Producer(ask, {}, env)
        running.callback(producer.close)
        jobs = producer.result(60)
        worker.terminate()
        lines = [line for line in worker.logs().splitlines() if line.startswith("{")]
        yield {"jobs": jobs, "entries": [json.loads(line) for line in lines], "log": worker.logs(), "loki": loki}


def entries(story, event, **fields):
    return [entry for entry in story["entries"] if entry["event"] == event and fields.items() <= entry.items()]


def test_each_prediction_is_one_entry_with_these_fields_and_its_callers_request_id(story):
    predictions = entries(story, "prediction")
    assert sorted(entry["task_id"] for entry in predictions) == sorted(story["jobs"])
    assert {tuple(sorted(entry)) for entry in predictions} == {tuple(sorted((*FIELDS, "event", "level", "task_id")))}
    assert {entry["request_id"] for entry in predictions} == {TRACE_ID, "bound", "talks", "raises", "fails", "parked"}
    (computed,) = entries(story, "prediction", request_id=TRACE_ID)
    assert computed["timestamp"].endswith("Z")
    assert len(computed["input_hash"]) == 64
    assert computed["tokens"] > 0 < computed["cost_usd"]
    assert computed["duration_ms"] > 0
    expected = {"service": "shop", "model": "control", "program": "qa", "variant": "control", "cache_hit": False}
    assert expected.items() <= computed.items()
    assert (computed["cache_level"], computed["status"], computed["error"]) == (None, "success", None)


def test_an_answer_from_the_cache_costs_nothing_and_names_its_source(story):
    (hit,) = entries(story, "prediction", request_id="bound")
    assert (hit["cache_hit"], hit["cache_level"], hit["tokens"], hit["cost_usd"]) == (True, "redis", 0, 0)


def test_a_failure_shows_types_and_places_and_no_text(story):
    for request_id, error in (("fails", "LMInvalidRequestError"), ("raises", "ValueError")):
        (failed,) = entries(story, "prediction", request_id=request_id)
        assert (failed["status"], failed["level"]) == ("error", "error")
        assert failed["error"] == f"PredictionFailed: {error}"
    (raised,) = entries(story, "program_raised")
    assert raised["request_id"] == "raises"
    assert re.search(r"talkative_program.py\", line \d+, in Talkative.forward\nValueError", raised["traceback"])
    assert "canary" not in story["log"]


def test_a_refusal_and_the_breaker_it_comes_from_are_entries(story):
    (opened,) = entries(story, "breaker_opened")
    assert (opened["model"], opened["before"]) == ("ill", "closed")
    refusals = entries(story, "refusal", guard="breaker", model="ill", program="qa", request_id="parked")
    assert refusals
    assert all(refusal["wait_seconds"] > 0 for refusal in refusals)
    assert entries(story, "queue_paused", queue="qa.ill")
    assert entries(story, "queue_resumed", queue="qa.ill")
    assert entries(story, "breaker_closed", model="ill")


def test_what_a_program_logs_carries_its_request(story):
    for event, stage, times in (("a plain line", 1, 1), ("a structured line", 2, 1), ("a line of a thread", 3, 2)):
        lines = entries(story, event, request_id="talks")
        assert [(line["program"], line["stage"]) for line in lines] == [("talkative", stage)] * times


def test_a_task_of_the_users_own_is_an_entry_without_its_arguments(story):
    (entry,) = entries(story, "task", status="success")
    assert entry["task"] == "tests.support.indiscreet.echo"
    assert "a user's own task" not in story["log"]


def test_every_line_is_json_but_what_celery_prints_at_the_end(story):
    said = story["log"][story["log"].index("{") :]  # before, Celery may warn of a worker run by root
    assert [line for line in said.splitlines() if line and line[0] != "{"] == ["worker: Warm shutdown (MainProcess)"]


def test_loki_gets_each_entry_under_two_labels(story):
    pushed = story["loki"].entries()
    assert {tuple(labels) for labels, _ in pushed} == {("service", "level")}
    assert {labels["service"] for labels, _ in pushed} == {"shop"}
    assert all(labels["level"] == entry["level"] for labels, entry in pushed)
    predictions = [entry for _, entry in pushed if entry["event"] == "prediction"]
    assert sorted(predictions, key=str) == sorted(entries(story, "prediction"), key=str)
    push = story["loki"].pushes[0]
    assert push.path == "/loki/api/v1/push"
    assert push.headers["Authorization"] == "Bearer loki-canary"
    assert "loki-canary" not in story["log"] + push.body.decode()


@pytest.mark.journey
def test_a_terminal_without_a_reader_delays_no_prediction_and_shows_lines_for_people(
    settings_file, redis_server, run_producer
):
    def ask_many(count):
        from dspyq import predict

        predict.many([{"question": f"number {number}"} for number in range(count)])[-1].get(timeout=20)
        return sum(bool(job.get(timeout=20)) for job in predict.many([{"question": f"{n}"} for n in range(count)]))

    path = settings_file({"workers": {"concurrency": 4}})
    terminal, its_end = pty.openpty()
    command = [CELERY, "-A", "dspyq", "worker", "--without-mingle", "-n", "terminal@localhost"]
    env = environment(path, redis_server.url) | {"COLUMNS": "200"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=its_end, start_new_session=True)
    os.close(its_end)
    try:
        with redis_server.client() as client:  # nobody reads that it is ready, but it listens to commands then
            wait_until(client.pubsub_numpat, 60, "the worker to start")
        assert run_producer(ask_many, path, count=150, timeout_seconds=60) == 150
        process.terminate()
        process.wait(20)  # though its last lines cannot be written
        shown = os.read(terminal, 100_000).decode()
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert plain != shown  # it has colours
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} \[info +\] prediction +.*status=success", plain, re.MULTILINE)


@pytest.fixture
def pipe():
    """A pipe as a log's stream, and the end to read from."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb") as reader:
        yield stream, reader


def record(event):
    return logging.makeLogRecord({"name": "dspyq.test", "levelname": "INFO", "msg": event})


def test_entries_that_find_no_room_are_dropped_counted_and_spoken_of(pipe):
    stream, reader = pipe
    counted = []
    writer = Writer(logging.StreamHandler(stream), json_renderer(), count_dropped=counted.append)
    began = time.monotonic()
    for number in range(CAPACITY + 3_000):
        writer.handle(record(Event("full", number=number, padding="x" * 100)))
    writer.flush(0.1)
    assert time.monotonic() - began < 30  # it never waited for the reader
    assert writer.dropped == sum(counted) > 0
    read = bytearray()
    reading = threading.Thread(target=lambda: read.extend(reader.read()))  # to the end of the stream
    reading.start()
    writer.flush(30)
    stream.close()
    reading.join(30)
    lines = [json.loads(line) for line in read.splitlines()]
    (remark,) = [line for line in lines if line["event"] == "log_entries_dropped"]
    assert remark["entries"] == writer.dropped
    assert len(lines) == CAPACITY + 3_000 - writer.dropped + 1


def test_a_record_that_cannot_be_formatted_is_logged_without_its_arguments(pipe):
    stream, reader = pipe
    writer = Writer(logging.StreamHandler(stream), json_renderer())
    faulty = record("%d")
    faulty.args = ("a canary",)
    writer.handle(faulty)
    writer.flush(5)
    said = json.loads(os.read(reader.fileno(), 10_000))
    assert (said["event"], said["error"], said["logger"]) == ("log_record_failed", "TypeError", "dspyq.test")
    assert "canary" not in str(said)


def test_no_line_holds_a_secret_whatever_its_source(pipe):
    stream, reader = pipe
    process_secrets().learn('key-"canary')
    for render in (json_renderer(), console_renderer(colours=False)):
        writer = Writer(logging.StreamHandler(stream), render)
        writer.handle(record('user said key-"canary, redis://user:p4ss-canary@host:1/0 and rediss://:p4ss-canary@host'))
        writer.flush(5)
    read = os.read(reader.fileno(), 100_000).decode()
    assert "canary" not in read
    assert read.count("redis://[secret]@host:1/0 and rediss://[secret]@host") == 2


def test_no_line_holds_what_a_terminal_would_obey():
    hostile = "\x1b]52;c;aGk=\x07 \x9b2J \u202e"
    entry = {
        "timestamp": 0.0,
        "level": "info",
        "event": hostile,
        "outputs": {"answer": hostile},
        "traceback": hostile,
        "error": "a\nb",
    }
    line = json_renderer()(entry)
    assert json.loads(line)["outputs"] == {"answer": hostile}
    for shown in (line, console_renderer(colours=False)(entry)):
        assert len(shown.splitlines()) <= 2  # the traceback has lines of its own
        assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_a_loki_that_fails_hangs_and_recovers_gets_every_entry_in_order(tmp_path):
    dropped = []
    with Collector() as collector:
        path = tmp_path / "dspyq.toml"
        path.write_text(f'[logging]\nloki_url = "{collector.url}"\nloki_tenant = "us"\n')
        options = {"count_dropped": dropped.append, "timeout_seconds": 0.3, "retry_seconds": 0.05}
        loki = Loki(load_settings(path).logging, json_renderer(), **options)
        collector.status = 503
        loki.push({"timestamp": time.time(), "level": "info", "event": str(n)} for n in range(3))
        wait_until(lambda: len(collector.pushes) >= 2, 60, "a second attempt")
        collector.going.clear()  # it hangs
        before = len(collector.pushes)
        wait_until(lambda: len(collector.pushes) >= before + 2, 60, "an attempt after a timeout")
        collector.status = 204
        collector.going.set()
        loki.push([{"timestamp": time.time(), "level": "info", "event": "last"}])
        wait_until(lambda: collector.entries() and collector.entries()[-1][1]["event"] == "last", 60, "all of them")
        assert list(dict.fromkeys(entry["event"] for _, entry in collector.entries())) == ["0", "1", "2", "last"]
        assert not dropped
        assert collector.pushes[0].headers["X-Scope-OrgID"] == "us"
        collector.status = 400  # what it refuses for good is not sent again
        loki.push([{"timestamp": time.time(), "level": "info", "event": "refused"}])
        wait_until(lambda: dropped == [1], 60, "the refused entry")
        collector.status = 503
        loki.push([{"timestamp": time.time(), "level": "info", "event": "late"}])
        loki.close(5)
        assert dropped == [1, 1]


def test_a_producer_logs_its_hits_if_configured(settings_file, run_producer, shared_worker):
    def hits():
        import logging

        from dspyq import predict

        told = []
        handler = logging.Handler()
        handler.emit = lambda entry: told.append([entry.levelname, str(entry.msg), entry.msg.fields])
        logging.getLogger("dspyq.predictions").addHandler(handler)
        logging.getLogger("dspyq.predictions").setLevel("INFO")
        predict.delay(question="q").get(timeout=20)
        predict.apply_async(kwargs={"question": "q"}, request_id="again").get(timeout=20)
        return told

    del shared_worker
    path = settings_file({"logging": {"producer_entries": True}})
    ((level, text, fields),) = run_producer(hits, path)
    assert (level, fields["status"], fields["cache_hit"], fields["request_id"]) == ("INFO", "success", True, "again")
    assert text.startswith("prediction request_id=again task_id=")
    assert not run_producer(hits)
