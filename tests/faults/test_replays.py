"""A task that runs again after its failure was stored: whoever waits or asks then gets the new outcome, not the old."""

import orjson
import pytest
import redis
from celery import states

from dspyq.celery_app.revocation import notify_callers, replay_dead_jobs
from dspyq.delivery.dead import dead_jobs
from dspyq.errors import PoisonedJob
from dspyq.store.clients import answers_client, jobs_client
from dspyq.store.keys import key, result_key

LATE_SECONDS = 60
OWN_ID = "order-17"


@pytest.fixture(params=["one Redis", "two Redis servers"])
def settings(request, settings_file, configure, fresh_redis_server):
    """This process's configuration, with answers beside the jobs and on another server."""
    changes = {"workers": {"imports": ["tests.support.user_tasks"]}}
    if request.param != "one Redis":
        changes["result_url"] = fresh_redis_server().url
    path = settings_file(changes)
    configure(path)
    return path


@pytest.fixture
def predict(settings):
    del settings
    from dspyq import predict

    return predict


def set_aside(*handles):
    """Dead-letter jobs that wait, and fail their callers, as sweeps do."""
    for handle in handles:
        jobs_client().zrem(key("queue:qa.control"), handle.id)
        jobs_client().hset(key(f"job:{handle.id}"), "reason", "a test")
        jobs_client().zadd(key("dead"), {handle.id: 2.0**31})
        jobs_client().sadd(key("untold"), handle.id)
    notify_callers([handle.id for handle in handles])


def store(task_id, **fields):
    meta = {"result": {}, "traceback": None, "children": []} | fields
    answers_client().set(result_key(task_id), orjson.dumps(meta))


def test_who_asks_while_a_replayed_job_runs_gets_its_answer(predict, settings, worker, endpoint, dspyq):
    failed = predict.delay(question="q")
    set_aside(failed)
    with pytest.raises(PoisonedJob):
        failed.get(timeout=LATE_SECONDS)
    endpoint.hold()
    dspyq("dead", "replay", failed.id, settings=settings)
    worker(settings)
    endpoint.wait_for_calls(1)
    joined = predict.delay(question="q")
    assert joined.id == failed.id
    assert predict.AsyncResult(failed.id).state == states.PENDING
    endpoint.release()
    assert joined.get(timeout=LATE_SECONDS).answer == "echo:q"
    assert predict.AsyncResult(failed.id).get(timeout=LATE_SECONDS).answer == "echo:q"
    with pytest.raises(PoisonedJob):  # a handle that has its outcome keeps it
        failed.get(timeout=LATE_SECONDS)


def test_a_failure_that_no_caller_fetched_is_none_of_who_asks_after_the_replay(predict, settings, worker, endpoint):
    warm, failed = predict.delay(question="warm"), predict.delay(question="q")
    set_aside(warm)
    with pytest.raises(PoisonedJob):
        warm.get(timeout=LATE_SECONDS)  # from now on this process listens to its channel
    set_aside(failed)
    other = predict.delay(question="other")
    set_aside(other)
    with pytest.raises(PoisonedJob):
        other.get(timeout=LATE_SECONDS)  # which came behind the other failure
    assert replay_dead_jobs([failed.id]) == 1
    endpoint.hold()
    worker(settings)
    endpoint.wait_for_calls(1)
    joined = predict.delay(question="q")
    assert joined.id == failed.id
    endpoint.release()
    assert joined.get(timeout=LATE_SECONDS).answer == "echo:q"


def test_a_replay_withdraws_the_failures_of_all_its_jobs_and_of_no_other(predict):
    handles = predict.many([{"question": name} for name in "abc"])
    set_aside(*handles)
    assert replay_dead_jobs([handles[0].id, "nobody", handles[1].id]) == 2
    assert [predict.AsyncResult(each.id).state for each in handles] == ["PENDING", "PENDING", "FAILURE"]
    assert [job.id for job in dead_jobs().find()] == [handles[2].id]


def test_a_replay_withdraws_the_failure_of_the_tasks_behind_a_job_in_its_chain(predict):
    from tests.support.user_tasks import shout

    last = (predict.s(question="q") | shout.s()).apply_async()
    set_aside(last.parent)
    assert predict.AsyncResult(last.id).state == states.FAILURE
    assert replay_dead_jobs([last.parent.id]) == 1
    assert predict.AsyncResult(last.id).state == states.PENDING


def test_a_replay_withdraws_no_answer(predict):
    """A job that was set aside while it sent its links has an answer, which its next run uses."""
    handle = predict.delay(question="q")
    store(handle.id, status=states.SUCCESS, input_hash=handle.request.input_hash)
    set_aside(handle)
    assert replay_dead_jobs([handle.id]) == 1
    assert predict.AsyncResult(handle.id).state == states.SUCCESS


def test_a_replayed_job_whose_question_another_run_has_by_now_gets_its_answer(predict, settings, worker, endpoint):
    failed = predict.delay(question="q")
    set_aside(failed)
    later = predict.delay(question="q")
    assert later.id != failed.id
    assert replay_dead_jobs([failed.id]) == 1
    worker(settings)
    assert predict.AsyncResult(failed.id).get(timeout=LATE_SECONDS).answer == "echo:q"
    assert later.get(timeout=LATE_SECONDS).answer == "echo:q"
    assert endpoint.calls() == 1


def test_a_run_after_a_failure_that_was_not_acknowledged_is_joined_for_its_own_outcome(predict):
    """A worker may die after it has stored a failure and before it has finished the job, which then runs again."""
    from dspyq.cache.claim import Run
    from dspyq.cache.claims import process_claims

    handle = predict.delay(question="q")
    process_claims().release(handle.request, Run(handle.id), {"failures": 1})
    store(handle.id, status=states.FAILURE, input_hash=handle.request.input_hash)
    run = Run(handle.id, is_repeated=True)
    assert process_claims().look_up(handle.request, run, is_first_look=False).verdict == "claim"
    joined = predict.delay(question="q")
    assert joined.id == handle.id
    assert joined.state == states.PENDING


@pytest.mark.parametrize("outcome", [states.FAILURE, states.REVOKED])
def test_a_task_id_whose_run_failed_may_be_asked_again(outcome, predict, settings, worker):
    first = predict.apply_async(kwargs={"question": "q"}, task_id=OWN_ID)
    predict.app.control.revoke(OWN_ID)
    store(OWN_ID, status=outcome, input_hash=first.request.input_hash)
    again = predict.apply_async(kwargs={"question": "q"}, task_id=OWN_ID)
    assert again.state == states.PENDING
    worker(settings)
    assert again.get(timeout=LATE_SECONDS).answer == "echo:q"


def test_a_task_id_whose_run_was_answered_keeps_its_answer_while_it_is_asked_again(predict):
    first = predict.apply_async(kwargs={"question": "q"}, task_id=OWN_ID)
    store(OWN_ID, status=states.SUCCESS, input_hash=first.request.input_hash)
    predict.apply_async(kwargs={"question": "q"}, task_id=OWN_ID)
    assert predict.AsyncResult(OWN_ID).state == states.SUCCESS


def test_a_producer_that_may_not_write_results_can_use_a_task_id_again(fresh_redis_server, settings_file, configure):
    server = fresh_redis_server()
    server.cli("ACL", "SETUSER", "producer", "on", ">secret", "+@all", "&*", "~dspy:v1:*", "~qa.*", "%R~celery-task-*")
    configure(settings_file(), redis_url=f"redis://producer:secret@127.0.0.1:{server.port}/0")
    from dspyq import predict
    from dspyq.prediction.request import build_request

    failed = {"status": "FAILURE", "result": {}, "traceback": None, "children": []}
    failed["input_hash"] = build_request({"question": "q"}).input_hash
    server.client().set(result_key(OWN_ID), orjson.dumps(failed))
    assert predict.apply_async(kwargs={"question": "q"}, task_id=OWN_ID).id == OWN_ID
    assert server.client().exists(key(f"job:{OWN_ID}")) == 1
    with pytest.raises(redis.exceptions.NoPermissionError):
        answers_client().delete(result_key(OWN_ID))
