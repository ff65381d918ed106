"""Streams of predictions, with real workers, a real Redis and a real endpoint that streams."""

import asyncio
import threading
import time
from contextlib import suppress

import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.celery_app.waiting import process_waiter
from dspyq.config.settings import get_settings
from dspyq.core.money import to_nano_usd
from dspyq.errors import InvalidOption, PredictionFailed
from dspyq.guards.costs import read_costs
from dspyq.store.keys import stream_key
from tests.support.processes import eventually

ANSWER = "one two three four five six seven eight nine ten 😀"
SLOW = {"outputs": {"answer": ANSWER}, "piece_characters": 4, "piece_interval_seconds": 0.05}


def ask(predict, question, **options):
    return predict.apply_async(kwargs={"question": question}, stream=True, **options)


def texts(chunks):
    found = {}
    for chunk in chunks:
        if chunk.kind == "delta":
            found[chunk.field] = found.get(chunk.field, "") + chunk.text
        elif chunk.kind == "reset":
            found.pop(chunk.field)
    return found


def listen(job, chunks=None):
    """Listen in a thread; return it and the list that fills up."""
    chunks = [] if chunks is None else chunks
    thread = threading.Thread(target=lambda: chunks.extend(job.stream(timeout=30)))
    thread.start()
    return thread, chunks


def test_the_text_comes_while_the_model_writes_and_the_answer_is_the_same(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(**SLOW)
    job = ask(predict, "q")
    chunks, in_flight = [], None
    for chunk in job.stream(timeout=30):
        if chunk.kind == "delta" and in_flight is None:
            in_flight = endpoint.counts().in_flight
        chunks.append(chunk)
    assert in_flight == 1
    assert len([chunk for chunk in chunks if chunk.kind == "delta"]) > 2
    assert [chunk.kind for chunk in chunks][:1] == ["status"]
    assert [chunk.kind for chunk in chunks][-1] == "completed"
    assert texts(chunks) == job.get(timeout=0).outputs == {"answer": ANSWER}
    offsets = [chunk.offset for chunk in chunks]
    assert offsets == sorted(offsets)
    assert job.get().metadata.cost_usd > 0
    assert endpoint.calls() == 1


def test_listeners_of_one_question_share_a_call_and_get_the_same(predict, shared_worker, endpoint, run_producer):
    del shared_worker
    endpoint.script(**SLOW)
    job = ask(predict, "shared")
    first, early = listen(job)
    eventually(lambda: any(chunk.kind == "delta" for chunk in early))
    joined = ask(predict, "shared")
    second, late = listen(joined)
    for thread in (first, second):
        thread.join(30)

    def look(task_id):
        from dspyq import predict

        return [[c.kind, c.field, c.text, c.offset] for c in predict.AsyncResult(task_id).stream(timeout=20)]

    afterwards = run_producer(look, task_id=job.id)
    assert joined.id == job.id
    assert early == late
    assert [[c.kind, c.field, c.text, c.offset] for c in early] == afterwards
    assert texts(early) == {"answer": ANSWER}
    assert endpoint.calls() == 1


def test_an_event_loop_listens_without_a_thread(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(**SLOW)

    async def both():
        jobs = [await predict.aapply_async(kwargs={"question": name}, stream=True) for name in ("a", "b")]

        async def all_of(job):
            return [chunk async for chunk in job.astream(timeout=30)]

        return await asyncio.gather(*map(all_of, jobs))

    found = asyncio.run(both())
    assert [texts(chunks) for chunks in found] == [{"answer": ANSWER}] * 2
    assert all(len(chunks) > 4 for chunks in found)
    assert not process_waiter().streams._logs  # noqa: SLF001 - nothing is left behind


def test_a_cached_answer_comes_as_one_piece_for_each_text(predict, shared_worker):
    del shared_worker
    answer = predict.delay(question="cached").get(timeout=20).answer
    again = ask(predict, "cached")
    assert [(chunk.kind, chunk.text) for chunk in again.stream()] == [("delta", answer), ("completed", "")]
    assert again.get().metadata.cached


def test_a_run_that_is_not_streamed_gives_its_texts_at_the_end(predict, shared_worker, endpoint, redis_server):
    del shared_worker
    job = predict.delay(question="plain")
    chunks = list(job.stream(timeout=20))
    assert [chunk.kind for chunk in chunks] == ["delta", "completed"]
    assert texts(chunks) == job.get().outputs
    assert "stream" not in endpoint.requests()[-1].parameters
    assert not redis_server.keys("dspy:v1:stream:*")


def test_a_failure_ends_the_stream_with_its_error(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(outputs={"answer": ANSWER}, status=400)
    with pytest.raises(PredictionFailed):
        list(ask(predict, "fails").stream(timeout=20))


def test_a_stream_that_takes_too_long_raises_and_goes_on(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.hold()
    job = ask(predict, "late")
    with pytest.raises(CeleryTimeoutError, match="no answer within"):
        list(job.stream(timeout=0.2))
    endpoint.release()
    assert list(job.stream(timeout=20))[-1].kind == "completed"


def test_who_joins_a_job_that_waits_has_it_streamed(predict, worker, endpoint):
    endpoint.script(**SLOW)
    predict.delay(question="queued")
    job = ask(predict, "queued")
    worker()
    chunks = list(job.stream(timeout=30))
    assert texts(chunks) == {"answer": ANSWER}
    assert len([chunk for chunk in chunks if chunk.kind == "delta"]) > 1


def test_a_task_id_of_one_s_own_is_streamed_too(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(**SLOW)
    chunks = list(ask(predict, "own", task_id="mine").stream(timeout=30))
    assert len([chunk for chunk in chunks if chunk.kind == "delta"]) > 1


def test_stream_is_true_or_false(predict):
    with pytest.raises(InvalidOption, match="stream is True or False"):
        predict.apply_async(kwargs={"question": "q"}, stream="yes")


def books_nano_usd(client):
    """The cost of all calls in the books of today."""
    lines = read_costs(client, get_settings(), days=1)
    return sum(line.billed_nano_usd + line.unknown_nano_usd for line in lines)


def held(redis_server):
    return redis_server.keys("dspy:v1:budget:leases")


def test_the_last_caller_s_cancellation_ends_the_call_and_it_is_charged_once(
    predict, shared_worker, endpoint, client, redis_server
):
    del shared_worker
    endpoint.script(**SLOW | {"piece_interval_seconds": 1})
    jobs = [ask(predict, "cancelled"), ask(predict, "cancelled")]
    stream = jobs[0].stream(timeout=30)
    while next(stream).kind != "delta":
        pass
    assert jobs[0].cancel() is False  # the other one still waits
    time.sleep(0.4)
    assert endpoint.counts().abandoned == 0
    stream.close()
    cancelled_at = time.monotonic()
    assert jobs[1].cancel() is True
    eventually(lambda: endpoint.counts().abandoned == 1)
    assert time.monotonic() - cancelled_at < 20  # 0.25 s on a quiet machine
    eventually(lambda: books_nano_usd(client) > 0)
    eventually(lambda: not held(redis_server))
    bound = books_nano_usd(client)
    usage = endpoint.counts()
    assert bound > to_nano_usd((usage.prompt_tokens * 1.0 + usage.completion_tokens * 2.0) / 1e6)
    assert predict.delay(question="another").get(timeout=20).answer  # the breaker is closed
    assert endpoint.calls() == 2
    assert not redis_server.keys("dspy:v1:job:*")


def test_a_killed_worker_s_heir_voids_the_text_and_goes_on(predict, worker, endpoint, client):
    endpoint.script(**SLOW | {"piece_interval_seconds": 0.5}, times=1)
    endpoint.script(**SLOW)
    first = worker()
    job = ask(predict, "killed")
    thread, chunks = listen(job)
    eventually(lambda: any(chunk.kind == "delta" for chunk in chunks))
    second = worker(waits=False)
    first.kill()
    second.ready()
    thread.join(60)
    assert texts(chunks) == {"answer": ANSWER} == job.get(timeout=0).outputs
    resets = [chunk for chunk in chunks if chunk.kind == "reset"]
    assert [(chunk.field, chunk.text) for chunk in resets] == [("answer", "rerun")]
    assert endpoint.calls() == 2
    assert client.zcard("dspy:v1:budget:leases") == 1  # the killed call, which is charged at its bound
    assert books_nano_usd(client) == to_nano_usd(job.get().metadata.cost_usd)


def test_a_reply_that_breaks_off_is_retried_and_its_text_is_void(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(**SLOW, drop_after_pieces=14, times=1)
    endpoint.script(**SLOW)
    job = ask(predict, "breaks off")
    chunks = list(job.stream(timeout=60))
    assert ("reset", "answer", "retry") in [(chunk.kind, chunk.field, chunk.text) for chunk in chunks]
    assert texts(chunks) == {"answer": ANSWER}
    assert endpoint.calls() == 2


def test_a_listener_whose_connection_is_cut_misses_nothing(predict, shared_worker, endpoint, client):
    del shared_worker
    endpoint.script(**SLOW | {"piece_interval_seconds": 0.1})
    job = ask(predict, "cut off")
    thread, chunks = listen(job)
    eventually(lambda: any(chunk.kind == "delta" for chunk in chunks))
    client.client_kill_filter(_type="pubsub")
    thread.join(30)
    assert texts(chunks) == {"answer": ANSWER}
    assert list(predict.AsyncResult(job.id).stream(timeout=20)) == chunks
    assert client.exists(stream_key(job.id))


def test_streams_live_with_the_answers_where_those_are_elsewhere(
    configure, settings_file, worker, fresh_redis_server, endpoint, client
):
    from dspyq import predict

    answers = fresh_redis_server()
    settings = settings_file({"result_url": answers.url})
    configure(settings)
    worker(settings)
    endpoint.script(**SLOW)
    job = ask(predict, "elsewhere")
    chunks = list(job.stream(timeout=30))
    assert texts(chunks) == {"answer": ANSWER}
    assert len([chunk for chunk in chunks if chunk.kind == "delta"]) > 1
    assert answers.keys("dspy:v1:stream:*") == [stream_key(job.id)]
    assert not client.keys("dspy:v1:stream:*")
    endpoint.script(**SLOW | {"piece_interval_seconds": 1})
    cancelled = ask(predict, "cancelled elsewhere")
    stream = cancelled.stream(timeout=30)
    while next(stream).kind != "delta":
        pass
    stream.close()
    assert cancelled.cancel()
    eventually(lambda: endpoint.counts().abandoned == 1)


@pytest.mark.long
def test_a_fallback_variant_s_text_is_streamed(configure, settings_file, worker, endpoint):
    from dspyq import predict

    fallback = {"when_unavailable": "fallback", "fallback_variant": "challenger"}
    changes = {"programs": {"qa": fallback}, "breaker": {"failure_threshold": 1}, "retry": {"max_attempts": 1}}
    settings = settings_file(changes, challenger=0.0)
    configure(settings)
    worker(settings)
    endpoint.script(model="control", status=500)
    endpoint.script(model="challenger", **SLOW)
    with suppress(PredictionFailed):
        predict.delay(question="opens the breaker").get(timeout=20)
    job = ask(predict, "falls back")
    chunks = list(job.stream(timeout=30))
    assert texts(chunks) == {"answer": ANSWER}
    assert job.get().metadata.fallback == "challenger"
    assert len([chunk for chunk in chunks if chunk.kind == "delta"]) > 1
