"""Places where money or jobs might slip through the guards, each tried with real workers."""

import itertools
import json
import os
import struct
import time
import zoneinfo

import pytest

from tests.faults.test_guards import ask, ask_one, questions
from tests.support.configuration import default_document
from tests.support.processes import eventually, wait_until

pytestmark = pytest.mark.journey

IMPATIENT = {"when_unavailable": "fail"}
SAMPLES = ["ThreeTries", "Refined", "Searcher", "Fan", "FanOfTwice", "Awaiting", "Gathering"]


def books(redis_server):
    """The counters of all books, added up over variants and models, and by variant."""
    sums, by_variant = {}, {}
    client = redis_server.client()
    for key in client.scan_iter("dspy:v1:costs:*"):
        for field, value in client.hgetall(key).items():
            variant, _, counter = field.split(" ")
            sums[counter] = sums.get(counter, 0) + int(value)
            by_variant.setdefault(variant, {})[counter] = int(value)
    return sums, by_variant


def holds(redis_server):
    client = redis_server.client()
    held = [int(client.hget(key, "held") or 0) for key in client.scan_iter("dspy:v1:budget:all:*")]
    return int(client.zcard("dspy:v1:budget:leases")) + sum(held)


def billed_nano_usd(endpoint):
    counts = endpoint.counts()
    return counts.prompt_tokens * 1000 + counts.completion_tokens * 2000


def expire_holds(redis_server):
    client = redis_server.client()
    for call in client.zrange("dspy:v1:budget:leases", 0, -1):
        client.zadd("dspy:v1:budget:leases", {call: 1}, xx=True)


def test_no_module_of_dspy_swallows_a_refusal(worker, settings_file, run_producer, endpoint, redis_server):
    """Each program's first call is answered, its second finds the provider ill: no further call, no worse answer."""
    own = {"failure_threshold": 1, "reset_timeout_seconds": 60}
    model = default_document(endpoint.url)["models"]["control"] | own
    tables = {"models": {}, "programs": {}, "retry": {"max_attempts": 1}}
    for name in SAMPLES:
        tables["models"][name] = model | {"model": f"openai/{name}"}
        program = {"signature": "question -> answer", "class": f"tests.programs.sample_programs:{name}"}
        tables["programs"][name] = program | IMPATIENT | {"variants": {"control": {"model": name}}}
        endpoint.script(times=1, model=name)
        endpoint.script(times=1, model=name, status=500)
        endpoint.script(model=name, latency_seconds=0.3)
    path = settings_file(tables)
    worker(path)
    told = {name: run_producer(ask_one, path, question="q", program=name) for name in SAMPLES}
    assert {name: answer.get("error") for name, answer in told.items()} == dict.fromkeys(SAMPLES, "BreakerOpen")
    time.sleep(0.5)  # threads that were left behind would call now
    calls = endpoint.counts().calls_by_model
    assert {name for name in SAMPLES if calls[name] > 2} <= {"Fan", "FanOfTwice", "Awaiting", "Gathering"}
    assert all(calls[name] <= 2 + 4 for name in ("Fan", "FanOfTwice"))  # those under way in its four threads
    assert not redis_server.keys("dspy:v1:prediction:*")
    eventually(lambda: holds(redis_server) == 0)


def test_a_fallback_after_a_paid_call_is_charged_too(worker, settings_file, run_producer, endpoint, redis_server):
    program = {
        "class": "tests.support.user_programs:TwoSteps",
        "when_unavailable": "fallback",
        "fallback_variant": "control",
    }
    breaker = {"failure_threshold": 1, "reset_timeout_seconds": 30}
    path = settings_file({"programs": {"qa": program}, "breaker": breaker, "budget": {"daily_usd": 1}}, challenger=0.5)
    worker(path, arguments=["-Q", "qa.challenger"])
    endpoint.script(status=500, model="challenger", containing="second")
    told = run_producer(ask_one, path, question="q", variant="challenger")
    assert (told["answer"], told["fallback"]) == ("echo:q first echo:q second", "control")
    _, by_variant = books(redis_server)
    assert by_variant["qa.control"]["calls"] == 2
    assert by_variant["qa.challenger"]["calls"] == 1
    assert sum(counters["billed_nano_usd"] for counters in by_variant.values()) == billed_nano_usd(endpoint)
    assert told["cost_usd"] == pytest.approx(by_variant["qa.control"]["billed_nano_usd"] / 1e9)


def test_a_call_frozen_beyond_its_holds_lease_is_settled_late_and_once(
    worker, settings_file, start_producer, endpoint, redis_server
):
    """Its job is run by another worker meanwhile: two calls, both in the books at what they cost."""
    path = settings_file({"budget": {"daily_usd": 1}})
    frozen = worker(path)
    endpoint.hold()
    asked = start_producer(ask_one, path, question="q", timeout=40)
    endpoint.wait_for_calls(1)
    worker(path)
    frozen.stop()
    endpoint.wait_for_calls(2, 20)
    endpoint.release()
    told = asked.result(20)
    assert told["answer"] == "echo:q"
    expire_holds(redis_server)
    eventually(lambda: holds(redis_server) == 0)
    assert books(redis_server)[0]["unknown_calls"] == 1
    frozen.cont()
    eventually(lambda: books(redis_server)[0]["unknown_calls"] == 0)
    sums, _ = books(redis_server)
    assert (sums["calls"], sums["unknown_nano_usd"], sums["billed_nano_usd"]) == (2, 0, billed_nano_usd(endpoint))
    assert told["cost_usd"] * 2 == pytest.approx(sums["billed_nano_usd"] / 1e9)


def test_a_job_revoked_in_mid_call_is_charged_and_leaves_nothing(
    worker, settings_file, start_producer, endpoint, redis_server, dspyq
):
    def ask_and_revoke(question):
        import time

        from celery.exceptions import TaskRevokedError

        from dspyq import predict
        from dspyq.celery_app.application import app

        job = predict.delay(question=question)
        time.sleep(1.5)
        app.control.revoke(job.id)
        try:
            return job.get(timeout=60).answer
        except TaskRevokedError:
            return "revoked"

    del dspyq
    path = settings_file({"budget": {"daily_usd": 1}})
    worker(path)
    endpoint.hold()
    asked = start_producer(ask_and_revoke, path, question="q")
    endpoint.wait_for_calls(1)
    assert asked.result(20) == "revoked"
    endpoint.release()
    eventually(lambda: holds(redis_server) == 0)
    assert books(redis_server)[0]["billed_nano_usd"] == billed_nano_usd(endpoint) > 0
    eventually(lambda: not redis_server.keys("dspy:v1:calls:*") + redis_server.keys("dspy:v1:job:*"))


def test_a_worker_on_sigterm_in_mid_call_answers_and_settles_it(
    worker, settings_file, start_producer, endpoint, redis_server
):
    path = settings_file({"budget": {"daily_usd": 1}})
    ending = worker(path)
    endpoint.script(latency_seconds=1.5)
    asked = start_producer(ask_one, path, question="q")
    endpoint.wait_for_calls(1)
    assert ending.terminate(20) == 0
    assert asked.result(60)["answer"] == "echo:q"
    assert books(redis_server)[0]["billed_nano_usd"] == billed_nano_usd(endpoint) > 0
    assert holds(redis_server) == 0


def test_jobs_taken_ahead_of_a_refusal_go_back_at_once_and_keep_their_turn(
    worker, settings_file, start_producer, endpoint, redis_server, dspyq
):
    path = settings_file({"workers": {"concurrency": 1, "prefetch_multiplier": 8}})
    worker(path)
    endpoint.hold()
    asked = start_producer(ask, path, questions=questions(12))
    endpoint.wait_for_calls(1)
    client = redis_server.client()
    eventually(lambda: client.zcard("dspy:v1:leases") >= 8)  # one runs, the others are taken
    dspyq("breaker", "open", "control", settings=path)
    endpoint.release()
    began_at = time.monotonic()
    eventually(lambda: client.zcard("dspy:v1:leases") == 0)
    assert time.monotonic() - began_at < 15
    time.sleep(1)
    assert endpoint.calls() == 1
    dspyq("breaker", "close", "control", settings=path)
    assert len(asked.result(20)) == 12
    assert [request.inputs["question"] for request in endpoint.requests()] == questions(12)


@pytest.mark.long
def test_a_fleet_makes_one_probe_for_each_opening(worker, settings_file, start_producer, endpoint):
    path = settings_file(
        {"breaker": {"failure_threshold": 3, "reset_timeout_seconds": 1, "max_reset_timeout_seconds": 1}}
    )
    for running in [worker(path, waits=False) for _ in range(3)]:
        running.ready()
    endpoint.script(status=503)
    asked = start_producer(ask, path, questions=questions(60))
    endpoint.wait_for_calls(3)
    time.sleep(5)
    moments = [request.received_at_seconds for request in endpoint.requests()]
    endpoint.clear()
    assert len(asked.result(40)) == 60
    probes = [moment for moment in moments if moment > moments[0] + 0.9]
    assert len(probes) >= 2
    assert min(after - before for before, after in itertools.pairwise(probes)) >= 0.95


def zone_of_midnight(second, folder):
    """Write the file of a timezone in which it is midnight at this whole second; return its name."""
    offset = (86400 - second % 86400) % 86400
    offset -= 86400 if offset > 43200 else 0
    header = b"TZif2" + b"\0" * 15
    block = struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", offset, 0, 0) + b"NEAR"
    (folder / "Test").mkdir()
    (folder / "Test" / "Near").write_bytes(header + block + header + block + b"\n\n")
    return "Test/Near"


def test_jobs_refused_today_are_served_after_midnight(
    worker, settings_file, start_producer, endpoint, redis_server, tmp_path
):
    midnight = int(time.time()) + 40
    zone = zone_of_midnight(midnight, tmp_path)
    env = {"PYTHONTZPATH": os.pathsep.join([str(tmp_path), *zoneinfo.TZPATH])}
    path = settings_file({"budget": {"daily_usd": 0.005, "timezone": zone}})
    running = worker(path, env=env)
    asked = start_producer(ask, path, env=env, questions=questions(24))
    running.wait_for_line('"queue_paused"')
    before = endpoint.calls()
    assert time.time() < midnight - 2
    wait_until(lambda: endpoint.calls() > before, 120, "a call of the new day")
    assert 0 <= time.time() - midnight < 30
    assert 0 < before < 24
    client = redis_server.client()
    for key in client.scan_iter("dspy:v1:budget:all:daily:*"):
        assert int(client.hget(key, "settled")) <= 5_000_000
    del asked


def test_an_error_whose_reply_states_a_usage_is_in_the_books_with_that_usage(
    worker, settings_file, run_producer, endpoint, redis_server
):
    path = settings_file({"budget": {"daily_usd": 1}})
    worker(path)
    error = {"error": {"code": 400}, "usage": {"prompt_tokens": 30, "completion_tokens": 40, "total_tokens": 70}}
    endpoint.script(body=json.dumps(error))
    assert "answer" not in run_producer(ask_one, path, question="q")
    sums, _ = books(redis_server)
    assert (sums["calls"], sums.get("unknown_calls", 0)) == (1, 0)
    assert (sums["prompt_tokens"], sums["completion_tokens"]) == (30, 40)
    assert sums["billed_nano_usd"] == (30 * 1 + 40 * 2) * 1000
    assert holds(redis_server) == 0


@pytest.mark.parametrize("tokens", [-50, 10**15])
def test_a_usage_that_cannot_be_is_charged_as_unknown(
    worker, settings_file, run_producer, endpoint, redis_server, tokens
):
    path = settings_file({"budget": {"daily_usd": 1}})
    worker(path)
    endpoint.script(usage={"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": 2 * tokens})
    told = run_producer(ask_one, path, question="q")
    assert "answer" in told  # what a reply says of its tokens is no reason to lose its text
    sums, _ = books(redis_server)
    assert sums["unknown_calls"] == 1
    assert sums["unknown_nano_usd"] > 0
    assert sums.get("prompt_tokens", 0) == 0
    assert holds(redis_server) == 0
