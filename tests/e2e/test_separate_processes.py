"""Producers in processes of their own: values, versions, variants, and a Redis that forgets or restarts."""

import pytest

from tests.support.processes import eventually


def test_a_forked_web_server_predicts_from_every_child(shared_worker, run_producer, configured):
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


def test_a_caller_that_changes_its_answer_changes_no_other(worker, settings_file, run_producer, configured):
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
    worker(theirs, env={"DSPYQ_DELIVERY__VERSION_WAIT_SECONDS": "1"})

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
