"""The whole way of a prediction, with real workers, a real Redis and a real HTTP endpoint."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

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


def test_a_worker_does_not_look_up_what_its_producer_has_just_claimed(predict, shared_worker, redis_server):
    del shared_worker
    claim = process_claims()._claim.sha  # noqa: SLF001 - what else would name the script
    with redis_server.monitored() as commands:
        predict.delay(question="claimed").get(timeout=20)
    assert sum(claim in command.text for command in commands) == 1
    with redis_server.monitored() as commands:  # an id of its own is no claim: its worker looks, and claims
        predict.apply_async(kwargs={"question": "by its own id"}, task_id="own").get(timeout=20)
    assert sum(claim in command.text for command in commands) == 1


def test_the_second_asker_is_answered_from_redis_and_the_third_from_memory(
    predict, shared_worker, run_producer, endpoint
):
    del shared_worker

    def ask():
        import time

        from dspyq import predict
        from dspyq.cache.memory import process_cache

        process_cache()
        time.sleep(0.5)  # it hears invalidations from now on
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
    eventually(lambda: predict.delay(question="q").get(timeout=20).answer == "new", timeout_seconds=1.0)
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


def test_a_forked_web_server_asks_from_every_child(shared_worker, run_producer, configured):
    del configured
    del shared_worker

    def serve():
        import os

        from dspyq import predict

        predict.delay(question="before the fork").get(timeout=20)
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    for question in (f"child {number}", "before the fork"):
                        if question in predict.delay(question=question).get(timeout=20).answer:
                            code = 0
                        else:
                            code = 1
                            break
                finally:
                    os._exit(code)
            children.append(child)
        assert "parent" in predict.delay(question="parent").get(timeout=20).answer
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

    assert run_producer(serve, timeout_seconds=60) == [0, 0, 0]


@pytest.mark.parametrize(
    "text",
    ["", " ", "ünïcödé 日本語 🎉", "quotes \" ' and \\ and \n newlines \x00", "x" * 1_000_000],
    ids=["empty", "blank", "unicode", "escapes", "megabyte"],
)
def test_texts_survive_the_round_trip_unchanged(text, worker, settings_file, run_producer, configured):
    del configured
    path = settings_file({"programs": {"qa": {"class": "tests.support.user_programs:Echo"}}})
    worker(path)

    def ask(text):
        from dspyq import predict

        return predict.delay(question=text).get(timeout=20).answer

    assert run_producer(ask, path, text=text) == text


def test_integers_of_64_bits_survive_the_round_trip(worker, settings_file, run_producer, configured):
    del configured
    program = {"signature": "question: int -> answer: int", "class": "tests.support.user_programs:Echo"}
    path = settings_file({"programs": {"qa": program}})
    worker(path)

    def ask():
        from dspyq import predict

        return [predict.delay(question=number).get(timeout=20).answer for number in (2**63 - 1, -(2**63), 0)]

    assert run_producer(ask, path) == [2**63 - 1, -(2**63), 0]


def test_typed_outputs_arrive_equal_to_what_the_program_returned(worker, settings_file, run_producer, configured):
    del configured
    kinds = "tests.support.user_programs"
    signature = (
        f"question -> label: Literal['a', 'b'], tags: list[str], scores: dict[str, float], day: date, "
        f"verdict: {kinds}.Verdict, point: {kinds}.Point, color: {kinds}.Color, maybe: int | None"
    )
    path = settings_file({"programs": {"qa": {"signature": signature, "class": f"{kinds}:Typed"}}})
    worker(path)

    def ask():
        from dspyq import predict
        from tests.support.user_programs import TYPED_OUTPUTS

        fresh = predict.delay(question="q").get(timeout=20)
        cached = predict.delay(question="q").get(timeout=20)
        return [fresh.outputs == TYPED_OUTPUTS, cached.outputs == TYPED_OUTPUTS, cached.metadata.cached]

    assert run_producer(ask, path) == [True, True, True]


def test_a_caller_that_changes_its_answer_changes_nobody_elses(worker, settings_file, run_producer, configured):
    del configured
    path = settings_file(
        {
            "programs": {
                "qa": {"signature": "question -> answer: list[str]", "class": "tests.support.user_programs:Listing"}
            }
        }
    )
    worker(path)

    def ask():
        import time

        from dspyq import predict
        from dspyq.cache.memory import process_cache

        process_cache()
        time.sleep(0.5)
        for _ in range(3):
            answer = predict.delay(question="q").get(timeout=20)
            levels = answer.metadata.cache_level
            answer.answer.append("changed")
        final = predict.delay(question="q").get(timeout=20)
        return [levels, final.metadata.cache_level, final.answer]

    assert run_producer(ask, path) == ["memory", "memory", ["q"]]


def test_a_worker_of_another_version_never_answers_under_the_wrong_key(
    worker, settings_file, run_producer, endpoint, configured
):
    del configured
    ours, theirs = settings_file(), settings_file({"programs": {"qa": {"version": "2"}}})
    worker(theirs, env={"DSPYQ_DELIVERY__MAX_HAND_BACKS": "3"})

    def ask():
        from dspyq import predict
        from dspyq.errors import VariantMismatch

        try:
            predict.delay(question="q").get(timeout=20)
        except VariantMismatch as error:
            return str(error)

    assert "another fingerprint" in run_producer(ask, ours)
    assert endpoint.calls() == 0


def test_each_variant_has_a_queue_that_a_worker_can_choose(worker, settings_file, run_producer, endpoint, configured):
    del configured
    path = settings_file(challenger=0.5)
    worker(path, arguments=["-Q", "qa.challenger"])

    def ask():
        from celery.exceptions import TimeoutError as CeleryTimeoutError

        from dspyq import predict

        served = predict.apply_async(kwargs={"question": "q"}, variant="challenger").get(timeout=20)
        try:
            predict.apply_async(kwargs={"question": "q"}, variant="control").get(timeout=1)
        except CeleryTimeoutError:
            return served.metadata.variant

    assert run_producer(ask, path) == "challenger"
    assert [request.model for request in endpoint.requests()] == ["challenger"]


def test_a_unit_sticks_to_its_variant(worker, settings_file, run_producer, configured):
    del configured
    path = settings_file(challenger=0.5)
    worker(path)

    def ask():
        from dspyq import predict
        from dspyq.config.settings import get_settings
        from dspyq.prediction.assignment import assign

        program = get_settings().programs["qa"]
        units = [f"user-{number}" for number in range(10)]
        handles = [predict.apply_async(kwargs={"question": f"q{n}"}, unit=u) for u in units for n in range(3)]
        seen = [handle.get(timeout=20).metadata.variant for handle in handles]
        return seen == [assign(program, unit).name for unit in units for _ in range(3)], sorted(set(seen))

    assert run_producer(ask, path) == [True, ["challenger", "control"]]


def test_answers_may_live_in_a_redis_of_their_own_that_forgets_them(
    fresh_redis_server, worker, run_producer, endpoint, configured
):
    del configured
    answers = fresh_redis_server()
    env = {"DSPYQ_RESULT_URL": answers.url}
    worker(env=env)

    def ask():
        from dspyq import predict

        first = predict.delay(question="q").get(timeout=20).metadata.cache_level
        while predict.delay(question="q").cache_level == "joined":
            pass  # the answer is there a moment before its alias is moved: two servers, two steps
        again = [predict.delay(question="q"), *predict.many([{"question": "q"}])]
        return [first, *(handle.get(timeout=20).metadata.cache_level for handle in again)]

    env |= {"DSPYQ_CACHE__MEMORY_ENTRIES": "0"}
    assert run_producer(ask, env=env) == [None, "redis", "redis"]
    answers.flush()
    assert run_producer(ask, env=env) == [None, "redis", "redis"]
    assert endpoint.calls() == 2


def test_a_result_that_is_no_prediction_says_so(predict, redis_server):
    from dspyq.errors import NotAPrediction

    redis_server.client().set(
        "celery-task-meta-alien",
        '{"status": "SUCCESS", "result": 1, "task_id": "alien", "children": [], "traceback": null}',
    )
    with pytest.raises(NotAPrediction, match="alien"):
        predict.AsyncResult("alien").get(timeout=5)


def test_a_job_published_by_name_alone_is_answered(configured, shared_worker):
    del configured
    from dspyq.celery_app.application import app

    del shared_worker
    result = app.send_task("dspyq.predict", kwargs={"question": "by name"})
    assert "by name" in result.get(timeout=20).answer


def test_a_producer_survives_a_restart_of_redis(fresh_redis_server, settings_file, start_producer, tmp_path):
    server = fresh_redis_server(append_only_directory=tmp_path)

    def ask():
        import time

        from dspyq import predict
        from dspyq.store.clients import jobs_client

        first = predict.delay(question="q")
        jobs_client().set("asked", 1)
        while jobs_client().get("asked"):
            time.sleep(0.05)
        return [first.id == predict.delay(question="q").id, predict.delay(question="new").cache_level]

    producer = start_producer(ask, settings_file(), redis_url=server.url)
    eventually(lambda: server.client().get("asked"))
    server.restart()
    server.client().delete("asked")
    assert producer.result() == [True, None]
