"""Asking from an event loop: nothing of it blocks the loop, also while Redis is frozen."""

import asyncio
from pathlib import Path

import pytest

from dspyq.core.runtime import current
from dspyq.errors import InvalidInputs, InvalidOption
from tests.support.processes import eventually

TURNS = 20


@pytest.fixture(autouse=True)
def finished(configured):
    """Threads that go on after a test end before its configuration does."""
    del configured
    yield
    from dspyq.client.off_loop import _executor

    _executor().shutdown()
    current().forget(_executor)


@pytest.fixture
def frozen(predict, redis_server):
    """Freeze Redis, until this is called."""
    del predict  # it has its configuration
    redis_server.process.stop()
    state = Path(f"/proc/{redis_server.process.pid}/stat")
    eventually(lambda: not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "T")
    yield redis_server.process.cont
    redis_server.process.cont()


async def turns(number=TURNS):
    """Let the loop turn. A call that blocked it would be over before the first of them is."""
    for _ in range(number):
        await asyncio.sleep(0.01)


WAYS = {
    "ask": lambda predict: predict.ask(question="q"),
    "ask with options": lambda predict: predict.ask({"question": "q"}, program="qa", unit="u", priority=3),
    "ask_many": lambda predict: predict.ask_many([{"question": "q"}, {"question": "r"}]),
    "adelay": lambda predict: predict.adelay(question="q"),
    "aapply_async": lambda predict: predict.aapply_async(kwargs={"question": "q"}, countdown=0.01),
    "amany": lambda predict: predict.amany([{"question": "q"}]),
    "acancel": lambda predict: predict.AsyncResult("some").acancel(),
    "await": lambda predict: asyncio.wait_for(predict.AsyncResult("some"), 60),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_loop_turns_while_redis_is_frozen(predict, frozen, way):
    async def run():
        task = asyncio.create_task(WAYS[way](predict))
        await turns()
        assert not task.done(), task
        frozen()
        if way in {"adelay", "aapply_async", "amany", "acancel"}:
            await asyncio.wait_for(task, 30)
        else:
            task.cancel()

    asyncio.run(run())


@pytest.mark.journey
def test_an_ask_of_a_redis_that_stays_frozen_ends_in_an_error_that_names_the_setting(
    fresh_redis_server, settings_file, run_producer
):
    server = fresh_redis_server()

    def ask(pid):
        import asyncio
        import os
        import signal
        import time

        from dspyq import predict
        from dspyq.errors import RedisUnavailable

        async def run():
            os.kill(pid, signal.SIGSTOP)
            began_at = time.monotonic()
            results = await asyncio.gather(
                *(predict.ask(question=f"q{number}") for number in range(200)), return_exceptions=True
            )
            assert all(isinstance(result, RedisUnavailable) for result in results), results[0]
            return [str(results[0]), str(results[-1]), time.monotonic() - began_at]

        try:
            return asyncio.run(run())
        finally:
            os.kill(pid, signal.SIGCONT)

    settings = settings_file({"redis_timeout_seconds": 0.5})
    first, last, seconds = run_producer(ask, settings, redis_url=server.url, pid=server.process.pid)
    assert "redis_timeout_seconds" in last or "Redis" in first
    assert seconds < 50  # all of them at once, and not one after the other


def test_an_answer_is_a_prediction_and_the_next_time_costs_no_thread_and_no_redis(
    predict, shared_worker, redis_server, endpoint
):
    del shared_worker

    async def run():
        first = await predict.ask(question="q")
        redis_server.process.stop()
        try:
            again = await asyncio.wait_for(predict.ask({"question": "q"}, program="qa"), 20)
        finally:
            redis_server.process.cont()
        return first, again

    first, again = asyncio.run(run())
    assert first.answer == again.answer
    assert (first.metadata.cache_level, again.metadata.cache_level) == (None, "memory")
    assert endpoint.calls() == 1


def test_a_thousand_asks_at_once_are_answered_each_with_its_questions_answer(predict, shared_worker, endpoint):
    del shared_worker

    async def run():
        jobs = [predict.ask(question=f"question {number % 20}") for number in range(1000)]
        return await asyncio.gather(*jobs)

    predictions = asyncio.run(run())
    hashes = [prediction.metadata.input_hash for prediction in predictions]
    assert hashes[:20] * 50 == hashes
    assert len(set(hashes)) == 20
    assert endpoint.calls() == 20


def test_many_are_answered_in_their_order_and_a_failure_stands_in_its_place(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(status=400, containing="bad")
    rows = [{"question": "a"}, {"question": "bad"}, {"question": "c"}]

    async def run():
        results = await predict.ask_many(iter(rows), program="qa", return_exceptions=True)
        with pytest.raises(type(results[1])):
            await predict.ask_many(rows)
        return results

    first, failed, last = asyncio.run(run())
    assert isinstance(failed, Exception)
    assert first.metadata.input_hash != last.metadata.input_hash


def test_cancelling_an_ask_ends_a_job_without_other_callers(predict, redis_server):
    from dspyq.prediction.request import build_request

    client = redis_server.client()
    alias = f"dspy:v1:prediction:{build_request({'question': 'shared'}).input_hash}"

    async def run():
        both = [asyncio.create_task(predict.ask(question=question)) for question in ("alone", "shared", "shared")]
        await asyncio.to_thread(eventually, lambda: client.hget(alias, "joined") == "1")
        await asyncio.to_thread(eventually, lambda: len(client.keys("dspy:v1:job:*")) == 2)
        for task in both[:2]:
            task.cancel()
        await asyncio.gather(*both[:2], return_exceptions=True)
        await asyncio.to_thread(eventually, lambda: len(client.keys("dspy:v1:job:*")) == 1)
        await asyncio.to_thread(eventually, lambda: client.hget(alias, "joined") == "0")
        both[2].cancel()
        await asyncio.gather(both[2], return_exceptions=True)
        await asyncio.to_thread(eventually, lambda: not client.keys("dspy:v1:job:*"))

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_ask_that_is_cancelled_before_redis_answered_leaves_no_job(predict, frozen, redis_server):
    async def run():
        task = asyncio.create_task(predict.ask(question="q"))
        await turns(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        frozen()

    asyncio.run(run())
    client = redis_server.client()
    eventually(lambda: not client.keys("dspy:v1:job:*"))
    eventually(lambda: not client.keys("dspy:v1:prediction:*"))


@pytest.mark.parametrize(
    ("inputs", "given", "error"),
    [
        ((), {"wrong": "q"}, InvalidInputs),
        (({"question": "q"},), {"queue": "x"}, InvalidOption),
        (({"question": "q"},), {"priority": 11}, InvalidOption),
        (("q",), {}, InvalidInputs),
    ],
)
def test_what_can_never_be_served_is_refused_before_redis_is_asked(predict, frozen, inputs, given, error):
    del frozen
    with pytest.raises(error):
        asyncio.run(predict.ask(*inputs, **given))


def test_the_blocking_form_ends_within_the_same_setting(fresh_redis_server, settings_file, run_producer):
    server = fresh_redis_server()

    def ask(pid):
        import os
        import signal
        import time

        from dspyq import predict
        from dspyq.errors import RedisUnavailable

        os.kill(pid, signal.SIGSTOP)
        began_at = time.monotonic()
        seen = []
        try:
            for call in (
                lambda: predict.delay(question="q"),
                lambda: predict.apply_async(kwargs={"question": "q"}, countdown=1),
                lambda: predict.many([{"question": "q"}]),
            ):
                try:
                    call()
                except RedisUnavailable as error:
                    seen.append(str(error))
            return [seen, time.monotonic() - began_at]
        finally:
            os.kill(pid, signal.SIGCONT)

    settings = settings_file({"redis_timeout_seconds": 0.5})
    seen, seconds = run_producer(ask, settings, redis_url=server.url, pid=server.process.pid)
    assert len(seen) == 3
    assert seconds < 50
