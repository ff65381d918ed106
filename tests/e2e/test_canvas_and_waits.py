"""Canvas, countdowns, expiry, threads and event loops over real workers."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.processes import eventually


def test_groups_over_new_cached_and_duplicate_rows_answer_all(predict, shared_worker, endpoint):
    from celery import group

    del shared_worker
    predict.delay(question="cached").get(timeout=20)
    asked = ["cached", "new", "new", "other", "cached"]
    result = group(predict.s(question=question) for question in asked)()
    answers = result.get(timeout=20)
    assert all(question in prediction.answer for question, prediction in zip(asked, answers, strict=True))
    assert endpoint.calls() == 3
    assert [p.metadata.cache_level for p in answers if "cached" in p.answer] == ["redis", "redis"]
    assert None in [p.metadata.cache_level for p in answers if "new" in p.answer]


def test_chords_over_new_cached_and_duplicate_rows_reach_their_body(predict, worker, endpoint):
    from celery import chord

    from tests.support.user_tasks import collect

    worker(env={"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'})
    predict.delay(question="cached").get(timeout=20)
    asked = ["cached", "new", "new"]
    collected = chord([predict.s(question=question) for question in asked])(collect.s())
    answers = collected.get(timeout=20)
    assert all(question in answer for question, answer in zip(asked, answers, strict=True))
    assert endpoint.calls() == 2


def test_chains_carry_a_prediction_on(predict, worker, endpoint):
    from celery import chain

    from tests.support.user_tasks import make_question, shout

    worker(env={"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'})
    for _ in range(2):  # the second time, the prediction is a hit
        result = chain(make_question.s("queues"), predict.s(), shout.s())()
        assert "WHAT OF QUEUES?" in result.get(timeout=20)
    assert endpoint.calls() == 1


def test_links_fire_for_computed_and_cached_answers_and_error_links_for_failures(
    predict, worker, endpoint, redis_server
):
    from tests.support.user_tasks import note, note_error

    worker(env={"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'})
    client = redis_server.client()
    for count in (1, 2):
        predict.apply_async(kwargs={"question": "q"}, link=note.s()).get(timeout=20)
        eventually(lambda: client.llen("noted") == count)  # noqa: B023 - used within the turn
    endpoint.script(status=400)
    job = predict.apply_async(kwargs={"question": "bad"}, link=note.s(), link_error=note_error.s())
    eventually(lambda: client.llen("noted-errors") == 1)
    assert job.failed()
    assert client.llen("noted") == 2
    assert endpoint.calls() == 2


def test_a_member_of_a_group_waits_for_a_run_in_flight(predict, shared_worker, endpoint):
    from celery import group

    del shared_worker
    endpoint.hold()
    running = predict.delay(question="q")
    endpoint.wait_for_calls(1)
    members = group(predict.s(question="q") for _ in range(3))()
    time.sleep(0.5)
    endpoint.release()
    assert {p.metadata.cache_level for p in members.get(timeout=20)} <= {"joined", "redis"}
    assert running.get(timeout=20).metadata.cost_usd > 0
    assert endpoint.calls() == 1


def test_a_countdown_waits_in_redis(predict, shared_worker, redis_server):
    del shared_worker
    started = time.monotonic()
    job = predict.apply_async(kwargs={"question": "later"}, countdown=1.5)
    eventually(lambda: redis_server.client().zcard("dspy:v1:delayed") == 1)
    job.get(timeout=20)
    assert time.monotonic() - started >= 1.4


def test_an_expired_prediction_is_dropped_unpaid(predict, worker, endpoint):
    from celery.exceptions import TaskRevokedError

    job = predict.apply_async(kwargs={"question": "too late"}, expires=0.2)
    time.sleep(0.5)
    worker()
    with pytest.raises(TaskRevokedError):
        job.get(timeout=20)
    assert endpoint.calls() == 0


def test_threads_share_what_they_wait_with(predict, shared_worker):
    del shared_worker
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda n: predict.delay(question=f"t{n}").get(timeout=30).answer, range(120)))
    assert all(f"t{number}" in answer for number, answer in enumerate(answers))


def test_predictions_are_awaited_by_hundreds_in_one_event_loop(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(latency_seconds=0.05)

    async def ask():
        jobs = predict.many([{"question": f"a{number}"} for number in range(200)])
        return await asyncio.gather(*jobs)

    answers = asyncio.run(ask())
    assert all(f"a{number}" in prediction.answer for number, prediction in enumerate(answers))


def test_awaiting_a_failed_prediction_raises_its_error(predict, shared_worker, endpoint):
    from dspyq.errors import PredictionFailed

    del shared_worker
    endpoint.script(status=400)

    async def ask():
        await predict.delay(question="q")

    with pytest.raises(PredictionFailed):
        asyncio.run(ask())
