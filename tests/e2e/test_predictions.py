"""The whole way of a prediction, with real workers, a real Redis and a real HTTP endpoint."""

import json
import time

import pytest

from dspyq.cache.claims import process_claims
from tests.support.processes import eventually


def leftovers(redis_server):
    """Keys of jobs that are not done."""
    return (
        redis_server.keys("dspy:v1:job:*") + redis_server.keys("dspy:v1:leases") + redis_server.keys("dspy:v1:queue:*")
    )


def test_a_prediction_comes_back_with_its_outputs_and_metadata(predict, shared_worker, endpoint, redis_server):
    del shared_worker
    before = time.time()
    job = predict.apply_async(kwargs={"question": "What is a task queue?"}, request_id="mine")
    prediction = job.get(timeout=20)
    assert "What is a task queue?" in prediction.answer
    assert prediction.outputs == {"answer": prediction.answer} == {"answer": prediction["answer"]}
    metadata = prediction.metadata
    assert (metadata.program, metadata.variant, metadata.model) == ("qa", "control", "openai/control")
    assert (metadata.cached, metadata.cache_level, metadata.request_id) == (False, None, "mine")
    assert metadata.input_hash == job.request.input_hash
    assert before <= metadata.timestamp <= time.time()
    assert metadata.usage.total_tokens == metadata.usage.prompt_tokens + metadata.usage.completion_tokens > 0
    expected_usd = (metadata.usage.prompt_tokens * 1.0 + metadata.usage.completion_tokens * 2.0) / 1e6
    assert metadata.cost_usd == pytest.approx(expected_usd)
    assert metadata.duration_seconds > 0
    assert endpoint.calls() == 1
    eventually(lambda: not leftovers(redis_server))


def test_a_truncated_answer_is_marked_and_not_cached(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(times=1, finish_reason="length")
    cut = predict.delay(question="Tell me everything").get(timeout=20)
    assert (cut.metadata.finish_reason, cut.metadata.is_truncated) == ("length", True)
    assert dict(cut) == cut.outputs == json.loads(json.dumps(cut.to_dict()))
    assert "answer" in dir(cut)
    whole = predict.delay(question="Tell me everything").get(timeout=20)
    assert (whole.metadata.finish_reason, whole.metadata.is_truncated) == ("stop", False)
    assert not whole.metadata.cached
    assert predict.delay(question="Tell me everything").get(timeout=20).metadata.cached
    assert endpoint.calls() == 2


def test_a_worker_does_not_look_up_what_its_producer_has_just_claimed(predict, shared_worker, redis_server):
    del shared_worker
    claims = process_claims()
    predict.delay(question="warm").get(timeout=20)  # Redis has the scripts from now on
    predict.apply_async(kwargs={"question": "warm, too"}, task_id="warm").get(timeout=20)
    looks_up, asks = claims._claim.sha, claims._claim_and_put.sha  # noqa: SLF001 - what else would name the scripts
    with redis_server.monitored() as commands:
        predict.delay(question="claimed").get(timeout=20)
    assert [sum(sha in command.text for command in commands) for sha in (looks_up, asks)] == [0, 1]
    with redis_server.monitored() as commands:  # an id of its own is no claim: its worker looks, and claims
        predict.apply_async(kwargs={"question": "by its own id"}, task_id="own").get(timeout=20)
    assert sum(looks_up in command.text for command in commands) == 1


def test_the_second_asker_is_answered_from_redis_and_the_third_from_memory(
    predict, shared_worker, run_producer, endpoint
):
    del shared_worker

    def ask():
        from dspyq import predict
        from dspyq.cache.memory import process_cache
        from tests.support.processes import eventually

        eventually(lambda: process_cache().is_trusted)
        predictions = [predict.delay(question="q").get(timeout=20) for _ in range(2)]
        return [[p.metadata.cache_level, p.metadata.cost_usd, p.metadata.request_id, p.answer] for p in predictions]

    first = predict.delay(question="q").get(timeout=20)
    redis_hit, memory_hit = run_producer(ask)
    assert redis_hit[:2] == ["redis", 0]
    assert memory_hit[:2] == ["memory", 0]
    assert redis_hit[3] == memory_hit[3] == first.answer
    assert len({redis_hit[2], memory_hit[2], first.metadata.request_id}) == 3
    assert endpoint.calls() == 1


def test_three_hundred_callers_in_three_processes_cost_one_model_call(
    start_producer, shared_worker, endpoint, configured
):
    del configured
    del shared_worker
    endpoint.hold()

    def ask():
        from concurrent.futures import ThreadPoolExecutor

        from dspyq import predict

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda _: predict.delay(question="same").get(timeout=30), range(100)))
        return [[p.answer, p.metadata.cost_usd, p.metadata.cache_level] for p in answers]

    producers = [start_producer(ask) for _ in range(3)]
    endpoint.wait_for_calls(1)
    time.sleep(1.0)  # gives further calls, if there were any, the time to come
    endpoint.release()
    answers = [answer for producer in producers for answer in producer.result()]
    assert len(answers) == 300
    assert len({answer for answer, _, _ in answers}) == 1
    assert endpoint.calls() == 1
    assert len([cost for _, cost, _ in answers if cost]) == 1
    assert {level for _, cost, level in answers if not cost} <= {"joined", "redis", "memory"}


def test_many_rows_come_back_in_their_order(predict, shared_worker, endpoint):
    del shared_worker
    handles = predict.many([{"question": f"row {number % 40}"} for number in range(100)])
    answers = [handle.get(timeout=30).answer for handle in handles]
    assert all(f"row {number % 40}" in answer for number, answer in enumerate(answers))
    assert endpoint.calls() == 40


def test_a_failure_is_seen_by_its_waiters_and_never_cached(predict, shared_worker, endpoint):
    from dspyq.errors import PredictionFailed

    del shared_worker
    endpoint.script(status=400, times=1)
    endpoint.hold()
    first, joined = predict.delay(question="q"), predict.delay(question="q")
    endpoint.wait_for_calls(1)
    endpoint.release()
    for handle in (first, joined):
        with pytest.raises(PredictionFailed):
            handle.get(timeout=20)
    assert joined.cache_level == "joined"
    assert "q" in predict.delay(question="q").get(timeout=20).answer
    from dspyq.cache.statistics import variant_statistics

    (row,) = variant_statistics()
    assert (row.calls, row.successes, row.failures) == (3, 1, 2)


def test_refresh_computes_a_new_answer_and_everyone_gets_it(predict, shared_worker, endpoint):
    del shared_worker
    endpoint.script(content="[[ ## answer ## ]]\nold\n\n[[ ## completed ## ]]", times=1)
    assert predict.delay(question="q").get(timeout=20).answer == "old"
    endpoint.script(content="[[ ## answer ## ]]\nnew\n\n[[ ## completed ## ]]", times=1)
    refreshed = predict.apply_async(kwargs={"question": "q"}, refresh=True).get(timeout=20)
    assert (refreshed.answer, refreshed.metadata.cached) == ("new", False)
    eventually(lambda: predict.delay(question="q").get(timeout=20).answer == "new")
    assert endpoint.calls() == 2


def test_forgetting_an_answer_makes_the_next_caller_compute_anew(predict, shared_worker, endpoint):
    del shared_worker
    job = predict.delay(question="q")
    job.get(timeout=20)
    job.forget()
    again = predict.delay(question="q").get(timeout=20)
    assert not again.metadata.cached
    assert endpoint.calls() == 2
    predict.AsyncResult(predict.delay(question="q").id).forget()  # a handle that knows nothing but the task id
    assert not predict.delay(question="q").get(timeout=20).metadata.cached


def test_a_result_that_is_no_prediction_raises(predict, redis_server):
    from dspyq.errors import NotAPrediction

    redis_server.client().set(
        "celery-task-meta-alien",
        '{"status": "SUCCESS", "result": 1, "task_id": "alien", "children": [], "traceback": null}',
    )
    with pytest.raises(NotAPrediction, match="alien"):
        predict.AsyncResult("alien").get(timeout=60)


def test_a_job_published_by_name_alone_is_answered(configured, shared_worker):
    del configured
    from dspyq.celery_app.application import app

    del shared_worker
    result = app.send_task("dspyq.predict", kwargs={"question": "by name"})
    assert "by name" in result.get(timeout=20).answer
