"""Answers evicted by Redis before they are read, and lost jobs: their waiters, and no others, get an error."""

import asyncio
import threading

import orjson
import pytest

from tests.support.processes import eventually


@pytest.fixture(autouse=True)
def soon(monkeypatch, configured):
    """Jobs are looked for at once, and not only after seconds."""
    del configured
    monkeypatch.setattr("dspyq.celery_app.lost_jobs.FIRST_CHECK_SECONDS", 0.2)


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
def test_waiting_for_an_evicted_answer_raises_and_advises_a_new_call(forgotten, wait, predict, endpoint):
    from dspyq.errors import AnswerLost

    with pytest.raises(AnswerLost, match="ask again") as raised:
        wait(forgotten)
    assert raised.value.retryable
    assert predict.delay(question="q").get(timeout=20).answer
    assert endpoint.calls() == 2


def test_waiting_for_a_lost_job_raises_and_advises_a_new_call(predict, redis_server):
    from dspyq.errors import AnswerLost

    handle = predict.delay(question="q")
    redis_server.client().flushall()
    with pytest.raises(AnswerLost, match="ask again"):
        handle.get(timeout=20)


def test_a_job_that_waits_for_a_worker_is_not_lost(predict):
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    with pytest.raises(CeleryTimeoutError, match=r"goes on: no worker takes from its queue, qa.control: start one"):
        predict.delay(question="q").get(timeout=3)


def test_an_unknown_id_is_waited_for_as_in_celery(predict):
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    with pytest.raises(CeleryTimeoutError):
        predict.AsyncResult("unknown").get(timeout=3)


def test_answers_arrive_while_the_redis_of_jobs_is_down(redis_server, caplog):
    from dspyq.celery_app.waiting import Waiter
    from dspyq.store.clients import connect

    client = redis_server.client(decode_responses=False)
    waiter = Waiter(client, connect("redis://127.0.0.1:1", retries=0))
    heard = threading.Event()
    waiter.add("task", lambda _: heard.set(), is_sent=True)
    eventually(lambda: any("jobs_not_looked_for" in message for message in caplog.messages))
    client.publish("celery-task-meta-task", orjson.dumps({"status": "SUCCESS", "result": None}))
    assert heard.wait(60)
    assert not any("results_not_heard" in message for message in caplog.messages)
