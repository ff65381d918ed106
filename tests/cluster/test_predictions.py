"""Predictions over a cluster, end to end."""

import uuid

import pytest

from dspyq import predict
from dspyq.celery_app import lost_jobs
from dspyq.errors import AnswerLost
from dspyq.prediction.request import build_request
from dspyq.store.clients import jobs_client
from dspyq.store.keys import job_key
from dspyq.store.spines import on_spine

pytestmark = pytest.mark.usefixtures("configured_cluster")


def test_questions_of_all_spines_are_answered_and_all_keys_carry_the_tag_of_their_spine(cluster_worker, redis_cluster):
    cluster_worker()
    questions = [{"question": f"question {number}"} for number in range(40)]
    first = [job.get(timeout=60).answer for job in predict.many(questions)]
    assert len(first) == 40
    assert [predict.delay(**each).get(timeout=60).answer for each in questions] == first
    names = [name for node in redis_cluster.masters() for name in node.client.scan_iter("*")]
    assert [name for name in names if not name.startswith("{")] == []
    spines = {name.partition("}")[0] for name in names if "celery-task-meta-" in name}
    assert len(spines) >= 3  # which of them depends on the endpoint.s address


def other_masters_id(question, redis_cluster):
    """Return an id that leads to another master than the question's spine."""

    def master_of(name):
        with on_spine(name):
            slot = redis_cluster.nodes[0].cli("CLUSTER", "KEYSLOT", job_key(""))
        return redis_cluster.owner(slot).port

    return next(each for each in iter(lambda: str(uuid.uuid4()), "") if master_of(each) != master_of(question))


def test_a_task_id_of_the_callers_own_is_answered_though_its_slot_is_another_masters(cluster_worker, redis_cluster):
    cluster_worker()
    task_id = other_masters_id(build_request({"question": "own"}).input_hash, redis_cluster)
    answer = predict.apply_async(kwargs={"question": "own"}, task_id=task_id).get(timeout=60).answer
    assert answer == predict.AsyncResult(task_id).get(timeout=60).answer
    assert predict.delay(question="own").get(timeout=60).answer == answer
    again = predict.apply_async(kwargs={"question": "own"}, task_id=task_id)
    assert again.get(timeout=60).answer == answer


def test_a_wait_for_an_id_of_the_callers_own_ends_once_its_job_is_lost_in_the_slot_of_another_master(
    redis_cluster, monkeypatch
):
    monkeypatch.setattr(lost_jobs, "FIRST_CHECK_SECONDS", 0.1)
    question = build_request({"question": "own"}).input_hash
    task_id = other_masters_id(question, redis_cluster)
    handle = predict.apply_async(kwargs={"question": "own"}, task_id=task_id)
    with on_spine(question):
        assert jobs_client().delete(job_key(task_id)) == 1
    with pytest.raises(AnswerLost):
        handle.get(timeout=60)
