"""Each call of an experiment is counted once, by whatever road it ends: real workers, dead ones, repeated scripts."""

from __future__ import annotations

import pytest
from celery.exceptions import TaskRevokedError

from dspyq.errors import DspyqError
from dspyq.experiments import administration
from dspyq.experiments.placement import place
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.store.keys import key
from tests.support.experiments import with_experiment
from tests.support.processes import wait_until

FAILPOINTS = {
    "TEST_FAILPOINTS": "1",
    "DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]',
    "DSPYQ_DELIVERY__VISIBILITY_TIMEOUT_SECONDS": "1",
}
SHORT_LEASES = {"DSPYQ_DELIVERY__VISIBILITY_TIMEOUT_SECONDS": "1"}
UNIT = "user"


@pytest.fixture
def path(settings_file):
    return settings_file(with_experiment(), challenger=0.5)


@pytest.fixture
def started(path, configure):
    program = configure(path).programs["qa"]
    return administration.start(program), administration.plan_of(program).table


@pytest.fixture
def ask(started):
    from dspyq import predict

    del started
    return lambda question="hi", **options: predict.apply_async(kwargs={"question": question}, unit=UNIT, **options)


@pytest.fixture
def counted(started):
    """Read what the arm of ``UNIT`` has: calls, and of them failed ones and hits, and computed answers."""
    state, table = started
    arm = place(state.placing, UNIT).variant

    def read():
        process_tally().flush()
        metrics = read_sums(state, table, today=20_000)[arm].metrics

        def sums(name):
            return int(sum(metrics[name].by_unit.denominators)), int(sum(metrics[name].by_unit.numerators))

        return {
            "calls": sums("call.failed")[0],
            "failed": sums("call.failed")[1],
            "hits": sums("call.hit")[1],
            "answers": sums("answer.cost")[0],
        }

    return read


def claimed(ask, question="hi"):
    """Ask, and return the handle with its whole request."""
    handle = ask(question)
    return handle, handle.request


def test_hits_are_counted_where_producers_log_none(ask, counted, worker, path):
    """The default: no log entries and no traces of hits."""
    worker(path)
    ask().get(timeout=20)
    assert [ask().get(timeout=20).metadata.cache_level for _ in range(2)] == ["memory", "memory"]
    assert counted() == {"calls": 3, "failed": 0, "hits": 2, "answers": 1}


def test_a_claim_that_is_repeated_after_a_lost_reply_is_one_call(ask, counted, worker, path):
    from dspyq.cache.claims import process_claims

    handle, request = claimed(ask)
    again = process_claims().claim(request, handle.id, priority=0)
    assert (again.verdict, again.task_id) == ("claim", handle.id)
    worker(path)
    handle.get(timeout=20)
    assert counted() == {"calls": 1, "failed": 0, "hits": 0, "answers": 1}


def test_a_join_that_is_repeated_after_a_lost_reply_is_one_call(ask, counted, worker, path):
    from dspyq.cache.claims import process_claims

    handle, request = claimed(ask)
    for _ in range(2):
        assert process_claims().claim(request, "the second caller", priority=0).verdict == "join"
    worker(path)
    handle.get(timeout=20)
    assert counted()["calls"] == 2


def test_a_join_whose_repeat_finds_the_answer_is_no_hit_besides(ask, counted, worker, path):
    from dspyq.cache.claims import process_claims

    handle, request = claimed(ask)
    assert process_claims().claim(request, "the second caller", priority=0).verdict == "join"
    worker(path)
    handle.get(timeout=20)
    again = process_claims().claim(request, "the second caller", priority=0)
    assert (again.verdict, again.batch) == ("hit", "counted")
    assert process_claims().claim(request, "a third caller", priority=0).batch == ""
    assert counted() == {"calls": 2, "failed": 0, "hits": 0, "answers": 1}


def test_a_caller_withdrawn_twice_takes_no_other_caller_back(ask, counted, worker, path):
    from dspyq.cache.claims import process_claims

    stays, also_stays, leaves = ask(), ask(), ask()
    for _ in range(2):
        process_claims().withdraw(leaves.request, leaves.id)
    worker(path)
    assert stays.get(timeout=20).answer == also_stays.get(timeout=20).answer
    assert counted()["calls"] == 2


def test_a_caller_that_cancels_after_its_question_was_invalidated_is_not_counted(ask, counted, worker, path):
    from dspyq.cache.claims import process_claims

    stays, leaves = ask(), ask()
    process_claims().invalidate([stays.request.input_hash])
    leaves.cancel()
    worker(path)
    stays.get(timeout=20)
    assert counted() == {"calls": 1, "failed": 0, "hits": 0, "answers": 1}


def test_the_callers_of_an_invalidated_question_are_counted_once(ask, counted, worker, endpoint, path):
    from dspyq.cache.claims import process_claims

    worker(path)
    endpoint.hold()
    handles = [ask(), ask()]
    endpoint.wait_for_calls(1)
    process_claims().invalidate([handles[0].request.input_hash])
    later = ask()
    assert later.id != handles[0].id
    endpoint.release()
    for handle in (*handles, later):
        handle.get(timeout=20)
    assert counted() == {"calls": 3, "failed": 0, "hits": 0, "answers": 2}


def test_a_job_that_finds_anothers_answer_counts_no_answer_of_its_own(ask, counted, worker, endpoint, path, client):
    """A task with an id of its own takes the question over from a job that waits."""
    waits = ask()
    own = ask(task_id="mine")
    client.zadd(key(f"queue:{waits.request.queue}"), {waits.id: 2.0**60})  # its turn is after the other's
    worker(path, env={"DSPYQ_WORKERS__CONCURRENCY": "1"})
    assert own.get(timeout=20).answer == waits.get(timeout=20).answer
    assert endpoint.calls() == 1
    assert counted() == {"calls": 2, "failed": 0, "hits": 1, "answers": 1}


@pytest.mark.parametrize("point", ["after-take", "after-begin", "before-store", "after-store", "before-ack"])
@pytest.mark.parametrize("task_id", [None, "mine"])
def test_a_call_whose_worker_dies_is_counted_once(ask, counted, worker, client, path, point, task_id):
    doomed, spare = (worker(path, env=FAILPOINTS, waits=False) for _ in range(2))
    doomed.ready()
    spare.ready()
    client.set("failpoint", point)
    handle = ask(**({"task_id": task_id} if task_id else {}))
    handle.get(timeout=30)
    wait_until(lambda: not client.exists("failpoint"), 60, "a worker to die")
    wait_until(lambda: not client.keys(key("job:") + "*"), 20, "the job to end")
    assert counted() == {"calls": 1, "failed": 0, "hits": 0, "answers": 1}


def test_the_callers_of_a_job_that_was_set_aside_are_failed_ones_once(ask, counted, worker, endpoint, path, dspyq):
    from dspyq import predict

    endpoint.hold()
    handles = [ask(), ask()]
    env = {"DSPYQ_DELIVERY__MAX_DELIVERIES": "1"}
    doomed = worker(path, env=SHORT_LEASES | env)
    endpoint.wait_for_calls(1)
    doomed.kill()
    worker(path, env=env)  # with leases that it holds on a busy machine too
    for handle in handles:
        with pytest.raises(DspyqError, match="set aside"):
            handle.get(timeout=20)
    assert counted() == {"calls": 2, "failed": 2, "hits": 0, "answers": 0}
    endpoint.release()
    dspyq("dead", "replay", handles[0].id, settings=path)
    assert predict.AsyncResult(handles[0].id).get(timeout=20).answer  # not the failure from before
    assert ask().get(timeout=20).answer
    assert counted()["failed"] == 2
    assert counted()["calls"] == 3


def test_a_revoked_job_is_a_failed_call_of_each_that_waited(ask, counted):
    from dspyq import predict

    handles = [ask(), ask()]
    predict.app.control.revoke(handles[0].id)
    for handle in handles:
        with pytest.raises(TaskRevokedError):
            handle.get(timeout=60)
    assert counted() == {"calls": 2, "failed": 2, "hits": 0, "answers": 0}


def test_a_cancelled_call_with_an_id_of_its_own_is_not_counted(ask, counted, worker, endpoint, path):
    worker(path)
    endpoint.hold()
    handle = ask(task_id="mine")
    endpoint.wait_for_calls(1)
    assert handle.cancel()
    endpoint.release()
    assert counted()["calls"] == 0


def test_purged_jobs_are_failed_calls(ask, counted):
    from dspyq import predict

    ask("one")
    ask("two")
    assert predict.app.control.purge() == 2
    assert counted() == {"calls": 2, "failed": 2, "hits": 0, "answers": 0}


def test_a_failure_without_a_release_is_a_failed_call(ask, counted, client):
    from dspyq.celery_app.application import process_app
    from dspyq.delivery.job_messages import request_of_message

    handle = ask()
    request = request_of_message(client.hget(key("job:") + handle.id, "message"))
    for _ in range(2):
        process_app().backend.mark_as_failure(handle.id, DspyqError("in a hook"), request=request)
    assert counted() == {"calls": 1, "failed": 1, "hits": 0, "answers": 0}
