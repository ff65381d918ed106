"""Callbacks of results and groups: called once, by whatever brings the result, and nothing is kept afterwards."""

# ruff: noqa: SLF001 - what is kept is what is tested

import asyncio
import gc
import threading
import weakref

import pytest
from celery import group

from dspyq.core.tolerated import tolerated
from tests.support.processes import eventually


def kept(predict):
    """The entries that Celery's backend and the waiter keep."""
    from dspyq.celery_app.waiting import process_waiter

    backend = predict.app.backend
    concrete, weak = backend._pending_results
    buffered = len(backend._pending_messages)
    return len(concrete), len(weak), buffered, len(process_waiter()._awaited), backend.result_consumer.subscribed_to


NOTHING = (0, 0, 0, 0, set())


def test_a_callback_is_called_once_by_get_and_nothing_is_kept(predict, shared_worker):
    del shared_worker
    called = []
    job = predict.delay(question="q")
    job.then(called.append)
    job.then(lambda result: called.append(result.get().answer))
    answer = job.get(timeout=20).answer
    eventually(lambda: len(called) == 2)
    assert called == [job, answer]
    job.then(called.append)
    assert called[2] is job
    eventually(lambda: kept(predict) == NOTHING)
    gone = weakref.ref(job)
    del job
    called.clear()
    eventually(lambda: gc.collect() is not None and gone() is None)


def test_a_callback_is_called_without_a_waiting_caller(predict, shared_worker):
    del shared_worker
    called = threading.Event()
    predict.delay(question="q").then(lambda _: called.set())
    assert called.wait(20)
    eventually(lambda: kept(predict) == NOTHING)


def test_a_callback_of_a_hit_is_called_at_once(predict, shared_worker):
    del shared_worker
    predict.delay(question="q").get(timeout=20)
    called = []
    predict.delay(question="q").then(called.append)
    assert called[0].get().answer


def test_a_callback_of_a_failure_is_called_too(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(status=400)
    called, job = threading.Event(), predict.delay(question="q")
    job.then(lambda result: result.failed() and called.set())
    assert called.wait(20)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whichever
        job.get(timeout=20)


def test_a_callback_that_raises_or_waits_hinders_no_other(predict, shared_worker, endpoint):
    del shared_worker
    called, before = threading.Event(), tolerated("callback")

    def fail(_):
        raise ValueError

    def ask_on(_):
        predict.delay(question="another").get(timeout=20)
        called.set()

    endpoint.hold()
    job = predict.delay(question="q")
    for callback in (fail, ask_on):
        job.then(callback)
    endpoint.release()
    assert job.get(timeout=20).answer
    assert called.wait(20)
    eventually(lambda: tolerated("callback") > before)


def test_an_error_callback_gets_what_a_callback_raised(predict, shared_worker):
    del shared_worker
    errors = []

    def fail(_):
        raise ValueError("mine")

    job = predict.delay(question="q")
    job.then(fail, errors.append)
    job.get(timeout=20)
    eventually(lambda: [str(error) for error in errors] == ["mine"])


def test_groups_over_cached_members_keep_nothing(predict, shared_worker):
    del shared_worker
    predict.delay(question="q").get(timeout=20)
    for _ in range(3):
        members = group(predict.s(question="q") for _ in range(10))()
        assert kept(predict)[:4] == (0, 0, 0, 0)
        assert len({each.answer for each in members.get(timeout=20)}) == 1
    eventually(lambda: kept(predict) == NOTHING)


def test_a_group_calls_back_by_message_and_when_it_is_whole(predict, shared_worker):
    del shared_worker
    seen, whole = [], []
    members = group(predict.s(question=f"q{number % 3}") for number in range(5))()
    members.then(whole.append)
    assert len(members.get(timeout=20, on_message=seen.append)) == 5
    assert len(whole) == 1
    assert all(message["status"] == "SUCCESS" for message in seen)


def test_a_group_of_groups_gives_their_results_and_a_failure_is_raised(predict, shared_worker, endpoint):
    del shared_worker
    nested = group(group(predict.s(question="a"), predict.s(question="b")), predict.s(question="c"))()
    assert len(nested.get(timeout=20)) == 3
    endpoint.script(status=400, containing="bad")
    failing = group(predict.s(question="bad"), predict.s(question="a"))()
    with pytest.raises(Exception, match="LMInvalidRequestError"):
        failing.get(timeout=20)
    eventually(lambda: kept(predict) == NOTHING)


def test_a_late_group_raises_and_can_be_waited_for_again(predict, worker):
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    members = group(predict.s(question=f"q{number}") for number in range(3))()
    intervals = []
    with pytest.raises(CeleryTimeoutError):
        members.get(timeout=0.3, interval=0.1, on_interval=lambda: intervals.append(1))
    assert intervals
    assert kept(predict)[3] == 0
    worker()
    assert len(members.get(timeout=20)) == 3


def test_a_group_can_be_awaited(predict, shared_worker):
    del shared_worker

    async def run():
        members = await asyncio.to_thread(group(predict.s(question=f"q{number}") for number in range(3)))
        return await asyncio.wait_for(members, 20)

    assert len(asyncio.run(run())) == 3
    eventually(lambda: kept(predict) == NOTHING)
