"""Followers of an answer or a failure, where workers die on the way: each runs once, with what is stored."""

import pytest

from tests.support.processes import eventually

IMPORTS = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'}


def left(redis_server):
    return (
        redis_server.keys("dspy:v1:job:*") + redis_server.keys("dspy:v1:leases") + redis_server.keys("dspy:v1:queue:*")
    )


@pytest.fixture
def doomed(worker, redis_server):
    """Start a worker that dies once it reaches a point; it leaves tasks other than predictions to others."""

    def start(point, **env):
        redis_server.client().set("failpoint", point)
        return worker(env=IMPORTS | {"TEST_FAILPOINTS": "1"} | env, arguments=["-Q", "qa.control"])

    return start


def test_links_fire_once_though_the_worker_dies_before_its_ack(predict, doomed, worker, endpoint, redis_server):
    from tests.support.user_tasks import note

    first = doomed("before-ack")
    predict.apply_async(kwargs={"question": "q"}, link=note.s())
    first.wait(20)
    worker(env=IMPORTS)
    eventually(lambda: not left(redis_server))
    assert redis_server.client().llen("noted") == 1
    assert endpoint.calls() == 1


def test_error_links_fire_once_though_the_worker_dies_before_its_ack(predict, doomed, worker, endpoint, redis_server):
    from tests.support.user_tasks import note_error

    endpoint.script(status=400)
    others = worker(env=IMPORTS, arguments=["-Q", "dspyq"])  # has run the link when the job is taken again
    first = doomed("before-ack")
    job = predict.apply_async(kwargs={"question": "q"}, link_error=note_error.s())
    first.wait(20)
    eventually(lambda: redis_server.client().llen("noted-errors") == 1)
    worker(env=IMPORTS, arguments=["-Q", "qa.control"])
    eventually(lambda: not left(redis_server))
    assert redis_server.client().lrange("noted-errors", 0, -1) == [job.id]
    assert endpoint.calls() == 2  # a failure is no answer: the job was tried again
    assert others.is_running


def test_a_link_gets_the_answer_that_its_caller_gets_though_a_worker_dies_before_it_is_stored(
    predict, doomed, worker, endpoint, redis_server
):
    from tests.support.user_tasks import note

    endpoint.script(content="[[ ## answer ## ]]\nanswer {call}\n\n[[ ## completed ## ]]\n")
    first = doomed("before-store")
    job = predict.apply_async(kwargs={"question": "q"}, link=note.s())
    first.wait(20)
    worker(env=IMPORTS)
    answer = job.get(timeout=20).answer
    eventually(lambda: not left(redis_server))
    assert redis_server.client().lrange("noted", 0, -1) == [answer]


@pytest.mark.parametrize("point", ["before-ack", "mid-chord"])
def test_a_chord_reaches_its_body_once_though_a_worker_dies(point, predict, doomed, worker, endpoint, redis_server):
    from celery import chord

    from tests.support.user_tasks import note_many

    first = doomed(point, DSPYQ_WORKERS__CONCURRENCY="1")  # dies between two calls
    chord([predict.s(question=question) for question in ("a", "b")])(note_many.s())
    first.wait(20)
    worker(env=IMPORTS)
    eventually(lambda: not left(redis_server))
    assert redis_server.client().lrange("noted-many", 0, -1) == ["2"]
    assert endpoint.calls() == 2


def test_a_chord_whose_member_is_set_aside_fails_though_its_claim_was_left_behind(predict, configured, redis_server):
    del configured
    from celery import chord

    from dspyq.celery_app.revocation import notify_callers
    from tests.support.user_tasks import note_many

    body = chord([predict.s(question="a")])(note_many.s())
    (member,) = body.parent.results
    client = redis_server.client()
    client.set(f"celery-taskset-meta-{body.parent.id}.c", "a process that died while it told of this", ex=60)
    client.zadd("dspy:v1:dead", {member.id: 1})
    notify_callers([member.id])
    assert body.state == "FAILURE"


@pytest.mark.parametrize("serve_seconds", ["0", "60"])
def test_a_linked_prediction_is_counted_once_and_has_its_children(predict, worker, redis_server, serve_seconds):
    from tests.support.user_tasks import note

    worker(env=IMPORTS | {"DSPYQ_PROGRAMS__QA__CACHE_TTL_SECONDS": serve_seconds})
    job = predict.apply_async(kwargs={"question": "q"}, link=note.s())
    eventually(lambda: not left(redis_server))
    assert redis_server.client().llen("noted") == 1
    assert len(predict.AsyncResult(job.id).children) == 1
    counts = redis_server.client().hgetall("dspy:v1:statistics:qa.control")
    assert (counts["misses"], counts["successes"]) == ("1", "1")
