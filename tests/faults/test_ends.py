"""Ends of jobs without an answer: poisoned, cancelled, revoked, handed back, expired."""

import json
import signal
import time

import pytest
from celery.exceptions import TaskRevokedError

from tests.support.processes import eventually


def left(redis_server):
    return (
        redis_server.keys("dspy:v1:job:*") + redis_server.keys("dspy:v1:leases") + redis_server.keys("dspy:v1:queue:*")
    )


def test_a_job_whose_workers_die_too_often_is_set_aside_and_its_callers_are_notified(
    predict, worker, endpoint, redis_server, configured
):
    from dspyq.errors import PoisonedJob

    endpoint.hold()
    first, joined = predict.delay(question="poison"), predict.delay(question="poison")
    env = {"DSPYQ_DELIVERY__VISIBILITY_TIMEOUT_SECONDS": "1"}
    for deaths in range(1, configured.delivery.max_deliveries + 1):
        doomed = worker(env=env)
        endpoint.wait_for_calls(deaths)
        doomed.kill()
    sweeper = worker(env=env)
    for handle in (first, joined):
        with pytest.raises(PoisonedJob, match="dspyq dead show"):
            handle.get(timeout=20)
    assert redis_server.client().zcard("dspy:v1:dead") == 1
    endpoint.release()
    assert not predict.delay(question="poison").get(timeout=20).metadata.cached  # its question is free again
    assert sweeper.is_running


def test_a_dead_job_can_be_listed_shown_replayed_and_dropped(predict, worker, redis_server, dspyq):
    for question in ("a", "b"):
        job = predict.delay(question=question)
        record = f"dspy:v1:job:{job.id}"
        redis_server.client().hset(record, "reason", "a test")
        redis_server.client().zadd("dspy:v1:dead", {job.id: time.time()})
        redis_server.client().zrem("dspy:v1:queue:qa.control", job.id)
    listed = json.loads(dspyq("dead", "list", "--json").stdout)
    assert [row["reason"] for row in listed] == ["a test", "a test"]
    assert "a test" in dspyq("dead", "list").stdout
    replayed, dropped = listed[0]["id"], listed[1]["id"]
    shown = dspyq("dead", "show", replayed).stdout
    assert "qa.control" in shown
    assert "question" not in json.loads(dspyq("dead", "show", replayed, "--json").stdout)
    assert "content" in dspyq("dead", "show", replayed, "--content", "--json").stdout
    assert json.loads(dspyq("dead", "replay", replayed, "--json").stdout) == {"replayed": 1}
    assert json.loads(dspyq("dead", "drop", dropped, "--json").stdout) == {"dropped": 1}
    assert json.loads(dspyq("dead", "list", "--json").stdout) == []
    worker()
    assert predict.AsyncResult(replayed).get(timeout=20).answer
    assert "no dead job" in dspyq("dead", "show", "nobody", ok=False).stderr


def test_a_job_of_an_unknown_task_is_set_aside_and_its_caller_gets_not_registered(configured, worker, redis_server):
    del configured
    from celery.exceptions import NotRegistered

    from dspyq.celery_app.application import app

    process = worker()
    result = app.send_task("nobody.knows.this")
    with pytest.raises(NotRegistered):
        result.get(timeout=60)
    client = redis_server.client()
    eventually(lambda: client.zcard("dspy:v1:dead") == 1 and client.scard("dspy:v1:untold") == 0)
    assert isinstance(app.AsyncResult(result.id).result, NotRegistered)  # once callers of dead jobs are notified too
    assert "job_not_readable" not in process.logs()


def test_a_malformed_message_does_not_stop_the_notification_of_other_callers(predict, redis_server):
    from dspyq.celery_app.revocation import notify_callers
    from dspyq.delivery.dead import dead_jobs
    from dspyq.errors import PoisonedJob

    client = redis_server.client()
    strange, good = predict.delay(question="strange"), predict.delay(question="good")
    record = f"dspy:v1:job:{strange.id}"
    message = json.loads(client.hget(record, "message"))
    client.hset(record, "message", json.dumps(message | {"headers": message["headers"] | {"group": {}, "dspyq": 1}}))
    for job in (strange, good):
        client.zadd("dspy:v1:dead", {job.id: time.time()})
        client.sadd("dspy:v1:untold", job.id)
    notify_callers([strange.id, good.id])
    with pytest.raises(PoisonedJob):
        good.get(timeout=60)
    assert dead_jobs().unnotified([strange.id, good.id]) == []


def test_one_callers_cancel_leaves_the_run_to_the_others_and_the_lasts_ends_it(predict, worker, endpoint, redis_server):
    first, joined = predict.delay(question="q"), predict.delay(question="q")
    assert not first.cancel()
    assert joined.cancel()
    with pytest.raises(TaskRevokedError):
        joined.get(timeout=60)
    worker()
    assert not predict.delay(question="other").get(timeout=20).metadata.cached
    assert [request.inputs for request in endpoint.requests()] == [{"question": "other"}]
    eventually(lambda: not left(redis_server))
    assert predict.delay(question="q").get(timeout=20).answer  # free to be asked again


def test_cancelling_what_is_answered_does_nothing(predict, shared_worker):
    del shared_worker
    job = predict.delay(question="q")
    job.get(timeout=20)
    assert not job.cancel()
    assert not predict.delay(question="q").cancel()
    assert predict.delay(question="q").get(timeout=20).metadata.cached


def test_a_revocation_while_no_worker_is_up_holds_and_ends_the_job_for_everyone(predict, worker, endpoint):
    handles = [predict.delay(question="q") for _ in range(3)]
    delayed = predict.apply_async(kwargs={"question": "later"}, countdown=0.5)
    predict.app.control.revoke([handles[0].id, delayed.id])
    worker()
    for handle in (*handles, delayed):
        with pytest.raises(TaskRevokedError):
            handle.get(timeout=60)
    time.sleep(1)
    assert endpoint.calls() == 0


def test_what_a_revoked_run_computes_is_not_stored(predict, worker, endpoint, redis_server):
    worker()
    endpoint.hold()
    job = predict.delay(question="q")
    endpoint.wait_for_calls(1)
    predict.app.control.revoke(job.id)
    endpoint.release()
    with pytest.raises(TaskRevokedError):
        job.get(timeout=60)
    endpoint.wait_for_answers(1)
    time.sleep(0.3)
    with pytest.raises(TaskRevokedError):
        predict.AsyncResult(job.id).get(timeout=60)
    assert not predict.delay(question="q").get(timeout=20).metadata.cached
    eventually(lambda: not left(redis_server))


def test_terminating_a_thread_is_refused_clearly(predict):
    from dspyq.errors import InvalidOption

    with pytest.raises(InvalidOption, match="thread"):
        predict.app.control.revoke("any", terminate=True)


def test_a_worker_on_sigterm_finishes_running_jobs_and_hands_the_rest_back_at_once(
    predict, worker, endpoint, redis_server
):
    endpoint.hold()
    env = {"DSPYQ_WORKERS__CONCURRENCY": "2", "DSPYQ_WORKERS__PREFETCH_MULTIPLIER": "4"}
    ending = worker(env=env)
    jobs = predict.many([{"question": f"q{number}"} for number in range(12)])
    endpoint.wait_for_calls(2)
    ending.send(signal.SIGTERM)
    eventually(lambda: redis_server.client().zcard("dspy:v1:queue:qa.control") == 10)
    endpoint.release()
    ending.wait(60)
    assert endpoint.calls() == 2
    worker()
    assert all(job.get(timeout=30).answer for job in jobs)
    assert endpoint.calls() == 12


def test_a_worker_with_a_stuck_thread_ends_within_its_grace_and_hands_the_job_back(predict, worker, endpoint):
    stuck = worker(env={"DSPYQ_DELIVERY__SHUTDOWN_GRACE_SECONDS": "1", "DSPYQ_MODELS__CONTROL__TIMEOUT_SECONDS": "60"})
    endpoint.hold()
    job = predict.delay(question="q")
    endpoint.wait_for_calls(1)
    started = time.monotonic()
    stuck.send(signal.SIGTERM)
    stuck.wait(60)
    assert time.monotonic() - started < 40
    endpoint.release()
    worker()
    assert job.get(timeout=20).answer
    assert endpoint.calls() == 2


@pytest.mark.long
def test_a_rolling_restart_loses_nothing_repeats_nothing_and_no_caller_sees_an_error(predict, worker, endpoint):
    endpoint.script(latency_seconds=0.1)
    fleet = [worker(), worker()]
    jobs = predict.many([{"question": f"q{number}"} for number in range(300)])
    for _ in range(2):
        successor = worker()
        ending = fleet.pop(0)
        ending.send(signal.SIGTERM)
        ending.wait(20)
        fleet.append(successor)
    answers = [job.get(timeout=60).answer for job in jobs]
    assert all(f"q{number}" in answer for number, answer in enumerate(answers))
    assert endpoint.calls() == 300
