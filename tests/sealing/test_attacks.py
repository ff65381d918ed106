"""A writer to Redis can make no answer: content that was changed, moved, forged or put in plain text is refused."""

from __future__ import annotations

import base64

import orjson
import pytest

from dspyq.core import runtime
from dspyq.errors import PoisonedJob
from dspyq.sealing.refusals import refusals
from dspyq.store.content import Kind, Plain, process_codec
from dspyq.store.keys import job_key, result_key
from tests.support.processes import eventually

NO_MEMORY = {"cache": {"memory_entries": 0}}


def forged(job, answer):
    """A plain result as a worker without encryption stores one, for this very question."""
    meta = orjson.loads(plain_result(job))
    meta["result"]["outputs"] = {"answer": answer}
    return orjson.dumps(meta)


def plain_result(job):
    return process_codec().decode(Kind.RESULT, job.id, stored_of(job))


def stored_of(job):
    from dspyq.store.clients import answers_client

    return answers_client().get(result_key(job.id))


def test_a_stored_answer_that_was_changed_moved_or_forged_is_a_miss_and_counted(
    configure, sealed, worker, client, endpoint
):
    path = sealed(True, NO_MEMORY)
    configure(path)
    worker(path)
    from dspyq import predict

    first, other = (predict.delay(question=question) for question in ("one", "other"))
    assert [job.get(timeout=40).answer for job in (first, other)] == ["echo:one", "echo:other"]
    assert b"echo" not in stored_of(first)
    calls = endpoint.calls()
    flipped = bytearray(stored_of(first))
    flipped[60] ^= 1
    attacks = {
        "altered": [bytes(flipped), stored_of(other), stored_of(first)[:-1]],
        "plain_text": [forged(first, "evil"), plain_result(first)],
        "unknown_key": [b"dq1k0000000" + stored_of(first)[11:]],
    }
    for cause, stored in attacks.items():
        for each in stored:
            now = predict.delay(question="one")
            now.get(timeout=40)
            counted = refusals.counts()[cause]
            client.set(result_key(now.id), each)
            again = predict.delay(question="one")
            assert (again.get(timeout=40).answer, again.id != now.id) == ("echo:one", True)
            assert refusals.counts()[cause] > counted
            calls += 1
            assert endpoint.calls() == calls


def test_a_job_that_was_changed_moved_or_put_in_plain_text_is_set_aside_and_calls_no_model(
    configure, sealed, worker, client, endpoint
):
    path = sealed(True, NO_MEMORY)
    configure(path)
    from dspyq import predict

    names = ("header", "refresh", "moved", "plain", "good")
    jobs = {name: predict.delay(question=name) for name in names}
    messages = {name: orjson.loads(client.hget(job_key(job.id), "message")) for name, job in jobs.items()}
    messages["header"]["headers"]["dspyq"]["input_hash"] = jobs["good"].request.input_hash
    messages["refresh"]["headers"]["dspyq"]["refresh"] = True
    messages["moved"]["body"] = messages["good"]["body"]
    messages["plain"]["body"] = base64.b64encode(orjson.dumps([[], {"question": "evil"}, {}])).decode()
    for name, job in jobs.items():
        client.hset(job_key(job.id), "message", orjson.dumps(messages[name]))
    worker(path)
    for name, job in jobs.items():
        if name == "good":
            assert job.get(timeout=40).answer == "echo:good"
            continue
        with pytest.raises(PoisonedJob):
            job.get(timeout=40)
    assert [request.inputs["question"] for request in endpoint.requests()] == ["good"]


@pytest.mark.journey
def test_a_published_forgery_does_not_end_a_wait(configure, sealed, worker, client, endpoint):
    path = sealed(True, NO_MEMORY)
    configure(path)
    worker(path)
    from dspyq import predict

    known = predict.delay(question="known")
    known.get(timeout=40)
    endpoint.hold(containing="waits")
    job = predict.delay(question="waits")
    later = job.then(lambda _: None)
    del later
    endpoint.wait_for_calls(2)
    counted = refusals.counts()["plain_text"]

    def publish():
        client.publish(result_key(job.id), forged(known, "evil"))
        client.publish(result_key(job.id[:13]), job.id.encode() + forged(known, "evil"))
        return refusals.counts()["plain_text"] > counted

    eventually(publish)
    assert not job.ready()
    endpoint.release()
    assert job.get(timeout=40).answer == "echo:waits"


def test_a_process_without_keys_takes_no_sealed_answer_and_leaves_it_for_others(configure, sealed, worker, client):
    path = sealed(True, NO_MEMORY)
    configure(path)
    worker(path)
    from dspyq import predict
    from dspyq.errors import NotAPrediction

    job = predict.delay(question="one")
    job.get(timeout=40)
    stored = client.get(result_key(job.id))
    runtime.current().put(process_codec, Plain())
    with pytest.raises(NotAPrediction, match="key that this process lacks"):
        predict.AsyncResult(job.id).get(timeout=10)
    runtime.current().forget(process_codec)
    assert client.get(result_key(job.id)) == stored
    assert predict.AsyncResult(job.id).get(timeout=10).answer == "echo:one"
