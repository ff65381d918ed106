"""All content in Redis passes one codec: with one that marks, nothing of a user's or a model's lacks the mark."""

from __future__ import annotations

import base64
import binascii
import json
import re

import pytest

from dspyq.core import runtime
from dspyq.core.tolerated import tolerated
from dspyq.errors import NotAPrediction
from dspyq.store import content
from dspyq.store.keys import result_key
from tests.support.marking_codec import MarkingCodec
from tests.support.nursery import IMPORTS_VARIABLE
from tests.support.processes import eventually

MARKING = {
    IMPORTS_VARIABLE: "tests.support.install_marking_codec",
    "DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]',
    "DSPYQ_CACHE__MEMORY_ENTRIES": "0",
}
#: In every input, and with it in every answer of the endpoint, in the text of a failure and in every provider's reply.
CANARY = "canary-of-a-user"
STORED = b'{"status":"SUCCESS","result":1,"children":[],"task_id":"mine"}'
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def ask_one(question):
    from dspyq import predict

    return predict.delay(question=question).get(timeout=40).answer


def ask_in_every_way(canary):
    """Answered, read again, by the hundred, failed, linked, in a chord, and set aside; what callers got."""
    from celery import chord
    from celery.exceptions import NotRegistered

    from dspyq import predict
    from dspyq.celery_app.application import app
    from dspyq.errors import DspyqError
    from tests.support.user_tasks import collect, shout

    def told(job):
        try:
            found = job.get(timeout=40)
            return getattr(found, "answer", found)
        except (DspyqError, NotRegistered) as error:
            return type(error).__name__

    def ask(what):
        return predict.delay(question=f"{canary} {what}")

    def streamed():
        job = predict.apply_async(kwargs={"question": f"{canary} stream"}, stream=True)
        return [(chunk.kind, chunk.text) for chunk in job.stream(timeout=40) if chunk.kind in {"delta", "reset"}]

    dead = app.send_task("nobody.knows", kwargs={"question": canary}, queue="dspyq")
    return {
        "answered": told(ask("one")),
        "again": told(ask("one")),
        "many": [told(job) for job in predict.many({"question": f"{canary} {n}"} for n in (1, 2, 3))],
        "many again": [told(job) for job in predict.many({"question": f"{canary} {n}"} for n in (1, 2, 3))],
        "streamed": streamed(),
        "failed": told(ask("refused")),
        "chained": (predict.s(question=f"{canary} chain") | shout.s()).apply_async().get(timeout=40),
        "chord": chord([predict.s(question=f"{canary} {n}") for n in ("a", "b")])(collect.s()).get(timeout=40),
        "dead": told(dead),
    }


def legible(commands):
    """The commands in which the canary stands, as it is or in base64."""
    found = []
    for command in commands:
        texts = [command.text]
        for run in _BASE64.findall(command.text):
            try:
                texts.append(base64.b64decode(run + "=" * (-len(run) % 4)).decode(errors="replace"))
            except binascii.Error:
                continue
        if any(CANARY in text for text in texts):
            found.append(command.text[:300])
    return found


@pytest.fixture
def watched(worker, redis_server, endpoint):
    """The commands of all clients while the block runs, with a worker that marks."""
    endpoint.script(containing="refused", status=400, body=json.dumps({"error": {"message": f"{CANARY} failed"}}))
    worker(env=MARKING)
    return redis_server.monitored


def test_predictions_of_every_fate_leave_no_content_in_redis_that_has_not_passed_the_codec(
    watched, run_producer, redis_server, dspyq
):
    with watched() as commands:
        told = run_producer(ask_in_every_way, env=MARKING, canary=CANARY, timeout_seconds=60)
        eventually(lambda: redis_server.keys("dspy:v1:dead"))
        dead = json.loads(dspyq("dead", "list", "--json", env=MARKING).stdout)
        shown = dspyq("dead", "show", dead[0]["id"], "--content", env=MARKING).stdout
    assert told["answered"] == told["again"] == f"echo:{CANARY} one"
    assert told["many"] == told["many again"] == [f"echo:{CANARY} {number}" for number in (1, 2, 3)]
    assert "".join(text for _, text in told["streamed"]) == f"echo:{CANARY} stream"
    assert {kind for kind, _ in told["streamed"]} == {"delta"}
    assert told["failed"] == "PredictionFailed"
    assert told["chained"] == f"ECHO:{CANARY} CHAIN".upper()
    assert told["chord"] == [f"echo:{CANARY} a", f"echo:{CANARY} b"]
    assert told["dead"] == "NotRegistered"
    assert CANARY in shown
    assert not legible(commands)
    for kind in (content.Kind.RESULT, content.Kind.PART, content.Kind.STREAM):
        assert [command for command in commands if f"marked:{kind}:" in command.text]
    assert [command for command in commands if base64.b64encode(b"marked:job:")[:14].decode() in command.text]


def test_a_reply_that_a_later_run_reads_has_passed_the_codec(
    worker, settings_file, start_producer, endpoint, redis_server
):
    path = settings_file({"programs": {"qa": {"class": "tests.support.user_programs:TwoSteps"}}})
    doomed = worker(path, env=MARKING)
    endpoint.hold(containing="second")
    with redis_server.monitored() as commands:
        asked = start_producer(ask_one, path, env=MARKING, question=CANARY)
        endpoint.wait_for_calls(2)
        doomed.kill()
        endpoint.release()
        worker(path, env=MARKING)
        assert asked.result(40) == f"echo:{CANARY} first echo:{CANARY} second"
    assert sum(request.inputs["question"].endswith("first") for request in endpoint.requests()) == 1
    assert not legible(commands)
    assert [command for command in commands if "marked:reply:" in command.text]


def test_a_batch_leaves_no_content_in_redis_that_has_not_passed_the_codec(watched, dspyq, tmp_path):
    questions = [f"{CANARY} {what}" for what in ("one", "two", "refused")]
    rows, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows.write_text("".join(json.dumps({"question": question}) + "\n" for question in questions))
    with watched() as commands:
        dspyq("batch", "run", str(rows), "--output", str(out), "--ordered", env=MARKING, ok=False)
        again = tmp_path / "again.jsonl"
        dspyq("batch", "run", str(rows), "--output", str(again), "--ordered", env=MARKING, ok=False)
    for file in (out, again):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        answers = [line["outputs"] and line["outputs"]["answer"] for line in lines]
        assert answers == [f"echo:{CANARY} one", f"echo:{CANARY} two", None]
        assert lines[2]["error"]["type"] == "PredictionFailed"
    assert not legible(commands)


@pytest.fixture
def marking(configured):
    """Let this process mark."""
    del configured
    runtime.current().put(content.process_codec, MarkingCodec())
    yield MarkingCodec()
    runtime.current().forget(content.process_codec)


def test_a_result_that_is_stored_for_another_task_is_none(marking):
    from dspyq import predict
    from dspyq.celery_app.application import app
    from dspyq.store.clients import answers_client

    mine = marking.encode(content.Kind.RESULT, "mine", STORED)
    for task_id in ("mine", "theirs"):
        answers_client().set(result_key(task_id), mine)
    assert app.AsyncResult("mine").get(timeout=60) == 1
    counted = tolerated("result")
    for result in (predict.AsyncResult("theirs"), app.AsyncResult("theirs")):
        with pytest.raises(NotAPrediction):
            result.get(timeout=60)
    assert tolerated("result") > counted
