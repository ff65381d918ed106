"""Answers that Redis forgets before they are read, and jobs that it loses: who waits is told, and nobody else is."""

import asyncio
import threading

import orjson
import pytest

from tests.support.processes import eventually


@pytest.fixture(autouse=True)
def soon(monkeypatch, configured):
    """Jobs are looked for at once, and not only after seconds."""
    del configured
    monkeypatch.setattr("dspyq.celery_app.waiting._FIRST_LOOK_SECONDS", 0.2)


@pytest.fixture
def forgotten(predict, shared_worker, redis_server):
    """A handle whose answer was stored and evicted."""
    del shared_worker
    handle = predict.delay(question="q")
    client = redis_server.client()
    eventually(lambda: client.delete(f"celery-task-meta-{handle.id}"))
    eventually(lambda: not client.exists(f"dspy:v1:job:{handle.id}"))
    return handle


def wait_in_a_thread(handle):
    return handle.get(timeout=20)


def wait_in_an_event_loop(handle):
    async def wait():
        return await asyncio.wait_for(handle, 20)

    return asyncio.run(wait())


@pytest.mark.parametrize("wait", [wait_in_a_thread, wait_in_an_event_loop])
def test_who_waits_for_an_answer_that_redis_forgot_is_told_to_ask_again(forgotten, wait, predict, endpoint):
    from dspyq.errors import AnswerLost

    with pytest.raises(AnswerLost, match="ask again") as raised:
        wait(forgotten)
    assert raised.value.retryable
    assert predict.delay(question="q").get(timeout=20).answer
    assert endpoint.calls() == 2


def test_who_waits_for_a_job_that_redis_lost_is_told_to_ask_again(predict, redis_server):
    from dspyq.errors import AnswerLost

    handle = predict.delay(question="q")
    redis_server.client().flushall()
    with pytest.raises(AnswerLost, match="ask again"):
        handle.get(timeout=20)


def test_a_job_that_waits_for_a_worker_is_not_lost(predict):
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    with pytest.raises(CeleryTimeoutError, match="goes on"):
        predict.delay(question="q").get(timeout=3)


def test_an_id_that_nobody_knows_is_waited_for_as_celery_does(predict):
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    with pytest.raises(CeleryTimeoutError):
        predict.AsyncResult("unknown").get(timeout=3)


def test_answers_are_heard_while_nobody_can_say_which_jobs_exist(redis_server, caplog):
    from dspyq.celery_app.waiting import Waiter
    from dspyq.store.clients import connect

    client = redis_server.client(decode_responses=False)
    waiter = Waiter(client, connect("redis://127.0.0.1:1", retries=0))
    heard = threading.Event()
    waiter.add("task", lambda _: heard.set(), is_sent=True)
    eventually(lambda: any("jobs_not_looked_for" in message for message in caplog.messages))
    client.publish("celery-task-meta-task", orjson.dumps({"status": "SUCCESS", "result": None}))
    assert heard.wait(10)
    assert not any("results_not_heard" in message for message in caplog.messages)
