"""Waits with hooks or a parent, and those for users' own tasks: whatever brings the result, and whenever, they end."""

import queue
import threading

import pytest

from dspyq.celery_app.waiting import process_waiter
from tests.support.processes import eventually

LATE_SECONDS = 60


@pytest.fixture
def answered(predict, shared_worker):
    """A prediction that is answered."""
    del shared_worker
    job = predict.delay(question="q")
    job.get(timeout=LATE_SECONDS)
    return job


@pytest.mark.parametrize("option", ["on_interval", "on_message"])
def test_a_caller_with_a_hook_gets_an_answer_that_is_there_when_it_looks(answered, predict, option):
    handle = predict.AsyncResult(answered.id)
    assert handle.get(timeout=LATE_SECONDS, **{option: lambda *_: None}).answer == answered.get().answer


def test_the_last_of_a_chain_gets_an_answer_that_is_there_when_it_looks(answered, predict):
    handle = predict.AsyncResult(answered.id)
    handle.parent = answered
    assert handle.get(timeout=LATE_SECONDS).answer == answered.get().answer


def test_the_last_of_a_chain_raises_the_error_of_the_one_before_it(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(status=400)
    handle = predict.AsyncResult("never asked")
    handle.parent = predict.delay(question="bad")
    with pytest.raises(Exception, match="LMInvalidRequestError"):
        handle.get(timeout=LATE_SECONDS)


def test_a_hook_is_called_while_nothing_arrives_and_nothing_is_kept_of_the_wait(predict):
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    called = threading.Event()
    job = predict.delay(question="q")
    with pytest.raises(CeleryTimeoutError, match="goes on"):
        job.get(timeout=0.3, interval=0.1, on_interval=called.set)
    assert called.is_set()
    assert process_waiter()._awaited == {}  # noqa: SLF001 - what is kept is what is tested


@pytest.fixture
def own_app(configured):
    """The application, for users' own tasks."""
    del configured
    from dspyq.celery_app.application import app

    return app


def test_the_progress_and_the_result_of_a_user_s_own_task_reach_who_waits_for_it(own_app):
    heard, seen = threading.Event(), queue.SimpleQueue()

    def note(message):
        seen.put((message["status"], message["result"]))
        heard.set()

    def work():
        while not heard.wait(0.05):  # until the wait has begun to listen
            own_app.backend.store_result("mine", {"done": 1}, "PROGRESS")
        own_app.backend.store_result("mine", 7, "SUCCESS")

    thread = threading.Thread(target=work)
    thread.start()
    assert own_app.AsyncResult("mine").get(timeout=LATE_SECONDS, on_message=note) == 7
    thread.join()
    states = [seen.get_nowait() for _ in range(seen.qsize())]
    assert states[0] == ("PROGRESS", {"done": 1})
    assert states[-1] == ("SUCCESS", 7)


def test_a_callback_of_a_user_s_own_task_is_called_once_without_a_waiting_caller(own_app):
    called = queue.SimpleQueue()
    result = own_app.AsyncResult("mine")
    for _ in range(2):
        result.then(called.put)
    own_app.backend.store_result("mine", 7, "SUCCESS")
    assert [called.get(timeout=LATE_SECONDS).result for _ in range(2)] == [7, 7]
    result.get(timeout=LATE_SECONDS)
    result.then(called.put)
    assert called.get(timeout=LATE_SECONDS) is result
    assert called.empty()
    eventually(lambda: not process_waiter()._awaited)  # noqa: SLF001 - as above
