"""Jobs that cannot be served now: they wait, fail or fall back, and nothing a program does changes that."""

import time

from tests.faults.test_guards import ask, ask_one, questions

#: Less than a call of the tests' model may cost: 1,024 tokens of a reply alone are 0.002.
NO_MONEY = {"daily_usd": 0.000001}


def test_a_job_waits_for_money_and_is_served_when_the_limit_is_raised(
    worker, settings_file, start_producer, endpoint, dspyq
):
    path = settings_file({"budget": {"daily_usd": 0.004}})
    running = worker(path)
    batch = start_producer(ask, path, questions=questions(300))
    running.wait_for_line('"queue_paused"', 20)
    time.sleep(1)
    spent = endpoint.calls()
    time.sleep(1)
    assert endpoint.calls() == spent < 300
    dspyq("budget", "set", "--daily", "10", settings=path)
    endpoint.wait_for_calls(spent + 1, timeout_seconds=60)
    assert len(batch.result(40)) == 300


def test_a_call_that_no_budget_can_ever_hold_fails_at_once(worker, settings_file, run_producer, endpoint):
    path = settings_file({"budget": NO_MONEY})
    worker(path)
    told = run_producer(ask_one, path, question="q")
    assert told["error"] == "BudgetExceeded"
    assert "dspyq budget set" in told["message"]
    assert endpoint.calls() == 0


def test_a_caller_that_does_not_wait_gets_an_error_with_the_setting_to_change(
    worker, settings_file, run_producer, endpoint
):
    fails = {"programs": {"qa": {"when_unavailable": "fail"}}}
    path = settings_file({**fails, "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 30}})
    worker(path)
    endpoint.script(times=1, status=500)
    first = run_producer(ask_one, path, question="opens it")
    assert first["error"] == "BreakerOpen"
    told = run_producer(ask_one, path, question="q")
    assert told["error"] == "BreakerOpen"
    assert "dspyq breaker show" in told["message"]
    assert endpoint.calls() == 1


def test_a_fallback_of_outputs_is_marked_and_never_cached(worker, settings_file, run_producer, endpoint):
    program = {"when_unavailable": "fallback", "fallback_outputs": {"answer": "ask again later"}}
    breaker = {"failure_threshold": 1, "reset_timeout_seconds": 1}
    path = settings_file({"programs": {"qa": program}, "breaker": breaker})
    worker(path)
    endpoint.script(times=1, status=500)
    told = run_producer(ask_one, path, question="q")
    assert (told["answer"], told["fallback"]) == ("ask again later", "outputs")
    time.sleep(1.2)
    told = run_producer(ask_one, path, question="q")
    assert (told["answer"], told["fallback"], told["cache_level"]) == ("echo:q", None, None)


def test_another_variants_answer_is_marked_and_charged_to_that_variant(
    worker, settings_file, run_producer, endpoint, redis_server
):
    program = {"when_unavailable": "fallback", "fallback_variant": "control"}
    breaker = {"failure_threshold": 1, "reset_timeout_seconds": 30}
    path = settings_file({"programs": {"qa": program}, "breaker": breaker}, challenger=0.5)
    worker(path, arguments=["-Q", "qa.challenger"])
    endpoint.script(status=500, model="challenger")
    told = run_producer(ask_one, path, question="q", variant="challenger")
    assert (told["answer"], told["fallback"], told["variant"]) == ("echo:q", "control", "challenger")
    assert told["model"] == "openai/control"
    assert not redis_server.keys("dspy:v1:prediction:*")
    (books,) = (redis_server.client().hgetall(key) for key in redis_server.keys("dspy:v1:costs:*"))
    assert any("qa.control" in field for field in books)


def test_a_program_that_catches_every_exception_gives_no_worse_answer(worker, settings_file, run_producer, endpoint):
    program = {"class": "tests.support.user_programs:Stubborn", "when_unavailable": "fail"}
    path = settings_file(
        {
            "programs": {"qa": program},
            "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 30},
            "retry": {"max_attempts": 1},
        }
    )
    worker(path)
    endpoint.script(containing="q.1", status=500)
    assert run_producer(ask_one, path, question="q")["error"] == "BreakerOpen"
    assert endpoint.calls() == 2


def test_threads_that_outlive_a_refusal_pay_for_nothing(worker, settings_file, run_producer, endpoint):
    program = {"class": "tests.support.user_programs:Crowd", "when_unavailable": "fail"}
    path = settings_file(
        {
            "programs": {"qa": program},
            "breaker": {"failure_threshold": 3, "reset_timeout_seconds": 30},
            "retry": {"max_attempts": 1},
        }
    )
    worker(path)
    endpoint.script(status=500)
    assert run_producer(ask_one, path, question="q")["error"] in {"BreakerOpen", "PredictionFailed"}
    time.sleep(1)
    assert endpoint.calls() <= 3 + 4


def test_a_class_that_brings_a_model_of_its_own_is_refused_at_start(worker, settings_file):
    path = settings_file({"programs": {"qa": {"class": "tests.support.user_programs:OwnModel"}}})
    refused = worker(path, waits=False)
    assert refused.wait(30) == 1
    assert "programs.qa" in refused.logs()
    assert '[programs.qa.models] "judge"' in refused.logs()


def test_a_parked_jobs_running_time_goes_on_where_it_stopped(worker, settings_file, run_producer, endpoint):
    path = settings_file(
        {
            "programs": {"qa": {"deadline_seconds": 2, "class": "tests.support.user_programs:TwoSteps"}},
            "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 1, "max_reset_timeout_seconds": 1},
        }
    )
    worker(path)
    endpoint.script(latency_seconds=0.6)
    endpoint.script(containing="second", times=2, status=500, latency_seconds=0.8)
    told = run_producer(ask_one, path, question="q")
    assert told["error"] == "DeadlineExceeded"
    assert sum(request.inputs["question"] == "q first" for request in endpoint.requests()) == 1


def test_a_revoked_job_pays_for_no_further_call(worker, settings_file, run_producer, endpoint):
    path = settings_file({"programs": {"qa": {"class": "tests.support.user_programs:TwoSteps"}}})
    worker(path)
    endpoint.hold(containing="first")

    def send():
        from dspyq import predict

        return predict.delay(question="q").id

    def revoke(job_id):
        from dspyq import predict

        predict.app.control.revoke(job_id)

    job_id = run_producer(send, path)
    endpoint.wait_for_calls(1)
    run_producer(revoke, path, job_id=job_id)
    endpoint.release()
    endpoint.wait_until_idle()
    time.sleep(0.5)
    assert endpoint.calls() == 1


def test_a_run_that_fails_while_redis_does_not_answer_ends_with_its_own_error(
    worker, settings_file, start_producer, endpoint, fresh_redis_server
):
    server = fresh_redis_server()
    path = settings_file({"redis_timeout_seconds": 1})
    worker(path, redis_url=server.url)
    endpoint.script(status=400)
    endpoint.hold()
    asked = start_producer(ask_one, path, redis_url=server.url, question="q")
    endpoint.wait_for_calls(1)
    server.process.stop()
    endpoint.release()
    time.sleep(3)  # longer than a call of Redis may take
    server.process.cont()
    assert asked.result(60)["error"] == "PredictionFailed"
