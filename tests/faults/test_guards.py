"""Providers that are ill, slow or strict: what real workers make of them."""

import time

import pytest

from tests.support.processes import eventually

RETRY_FAST = {"retry": {"base_delay_seconds": 0.05}}


def ask(questions):
    from dspyq import predict

    jobs = [predict.delay(question=question) for question in questions]
    return [job.get(timeout=40).answer for job in jobs]


def ask_when(questions):
    """The time before the first question, and the answers."""
    import time

    from dspyq import predict

    began_at = time.time()
    jobs = [predict.delay(question=question) for question in questions]
    return began_at, [job.get(timeout=60).answer for job in jobs]


def ask_one(question, timeout=20, **options):
    """The answer with its metadata, or the error."""
    from dataclasses import asdict

    from dspyq import predict
    from dspyq.errors import DspyqError

    try:
        prediction = predict.apply_async(kwargs={"question": question}, **options).get(timeout=timeout)
    except DspyqError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"answer": prediction.answer, **asdict(prediction.metadata)}


def questions(count):
    return [f"q{number}" for number in range(count)]


def costs(redis_server):
    """The books of today: every field of every model."""
    client = redis_server.client()
    return {key: client.hgetall(key) for key in client.scan_iter("dspy:v1:costs:*")}


def held(redis_server):
    return int(redis_server.client().zcard("dspy:v1:budget:leases"))


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 500},
        {"fault": "cut"},
        {"fault": "disconnect"},
        {"fault": "html"},
        {"fault": "hang"},
        {"fault": "trickle", "trickle_interval_seconds": 0.2},
    ],
    ids=lambda trouble: str(next(iter(trouble.values()))),
)
def test_what_passes_is_tried_again_and_is_one_entry(worker, settings_file, run_producer, endpoint, trouble):
    path = settings_file({**RETRY_FAST, "models": {"control": {"timeout_seconds": 0.7}}})
    worker(path)
    endpoint.script(times=2, **trouble)
    told = run_producer(ask_one, path, question="q")
    assert told["answer"] == "echo:q"
    assert endpoint.calls() == 3
    answered_usd = (told["usage"]["prompt_tokens"] * 1 + told["usage"]["completion_tokens"] * 2) / 1e6
    if "status" in trouble:  # costs nothing
        assert told["cost_usd"] == pytest.approx(answered_usd)
    else:  # may have been billed, and is charged what it can cost at most
        assert told["cost_usd"] > 2 * answered_usd


def test_attempts_end_and_the_caller_gets_the_providers_error(worker, settings_file, run_producer, endpoint):
    path = settings_file(RETRY_FAST)
    worker(path)
    endpoint.script(status=500)
    told = run_producer(ask_one, path, question="q")
    assert told["error"] == "TransientPredictionFailure"
    assert "scripted 500" in told["message"]
    assert endpoint.calls() == 3


def test_what_cannot_pass_is_not_tried_again(worker, settings_file, run_producer, endpoint):
    path = settings_file(RETRY_FAST)
    worker(path)
    endpoint.script(status=400)
    assert run_producer(ask_one, path, question="q")["error"] == "PredictionFailed"
    assert endpoint.calls() == 1


def test_a_reply_that_cannot_be_parsed_is_sampled_again_a_bounded_number_of_times(
    worker, settings_file, run_producer, endpoint
):
    path = settings_file(RETRY_FAST)
    worker(path)
    endpoint.script(times=2, fault="unparseable")  # ChatAdapter's, and JSONAdapter's second try
    assert run_producer(ask_one, path, question="mends")["answer"] == "echo:mends"
    endpoint.script(fault="unparseable")
    before = endpoint.calls()
    assert "AdapterParseError" in run_producer(ask_one, path, question="stays")["message"]
    assert endpoint.calls() - before <= 2 * 2


def test_an_outage_is_met_by_few_calls_and_loses_no_job(worker, settings_file, start_producer, endpoint):
    breaker = {"failure_threshold": 3, "reset_timeout_seconds": 1, "max_reset_timeout_seconds": 2}
    path = settings_file({**RETRY_FAST, "breaker": breaker})
    worker(path)
    endpoint.script(status=503)
    producer = start_producer(ask, path, questions=questions(40))
    endpoint.wait_for_calls(3)
    time.sleep(4)
    calls_into_the_outage = endpoint.calls()
    endpoint.clear()
    assert producer.result(40) == [f"echo:{question}" for question in questions(40)]
    assert calls_into_the_outage <= 3 + 8 + 5  # to the threshold, those under way then, and a probe for each period


def test_a_worker_takes_nothing_from_the_queue_of_an_ill_model_while_others_flow(
    worker, settings_file, start_producer, run_producer, endpoint
):
    breaker = {"failure_threshold": 1, "reset_timeout_seconds": 5}
    path = settings_file({**RETRY_FAST, "breaker": breaker, "workers": {"concurrency": 2}}, challenger=0.5)
    running = worker(path)
    endpoint.script(status=503, model="challenger")
    ill = start_producer(ask_one, path, question="ill", timeout=40, variant="challenger")
    running.wait_for_line('"queue":"qa.challenger","error":"BreakerOpen"', 10)
    told = run_producer(ask_one, path, question="well", variant="control")
    assert told["answer"] == "echo:well"
    endpoint.clear()
    assert ill.result(40)["answer"] == "echo:ill"


def test_a_429_makes_all_calls_wait_as_long_as_it_states(worker, settings_file, run_producer, endpoint):
    path = settings_file(RETRY_FAST)
    worker(path)
    worker(path)
    endpoint.script(times=1, status=429, headers={"retry-after": "2"})
    assert run_producer(ask, path, questions=["first"]) == ["echo:first"]
    endpoint.reset()
    endpoint.script(times=1, status=429, headers={"retry-after": "3"})
    answers = run_producer(ask, path, questions=questions(30))
    assert answers == [f"echo:{question}" for question in questions(30)]
    requests = endpoint.requests()
    refused_at = requests[0].received_at_seconds
    during = [each for each in requests if refused_at + 0.5 < each.received_at_seconds < refused_at + 2.7]
    assert not during
    assert len(requests) == 31


@pytest.mark.parametrize("trouble", [{"status": 401}, {"status": 429, "error_code": "insufficient_quota"}])
def test_a_refused_account_does_not_burn_a_batch(worker, settings_file, start_producer, endpoint, trouble):
    path = settings_file({**RETRY_FAST, "rate_limit": {"account_pause_seconds": 2}})
    worker(path)
    endpoint.script(**trouble)
    batch = start_producer(ask, path, questions=questions(60))
    endpoint.wait_for_calls(1)
    time.sleep(3)
    assert endpoint.calls() <= 8 + 8  # those under way, and those of the pause's end
    endpoint.clear()
    assert len(batch.result(40)) == 60


def test_a_rate_limit_holds_over_two_workers_and_no_job_is_lost(worker, settings_file, run_producer, endpoint):
    path = settings_file(
        {"models": {"control": {"requests_per_second": 20}}, "rate_limit": {"longest_wait_seconds": 1}}
    )
    for _ in range(2):
        worker(path)
    began_at, answers = run_producer(ask_when, path, questions=questions(80))
    assert len(answers) == 80
    moments = sorted(request.received_at_seconds for request in endpoint.requests())
    # A call arrives behind its turn, later still on a busy machine; turns are 1/20 s apart from the first on.
    assert all(moment - began_at > (turn - 1) / 20 for turn, moment in enumerate(moments))


def test_a_reply_that_was_paid_for_is_not_paid_again_after_a_kill(worker, settings_file, start_producer, endpoint):
    program = {"class": "tests.support.user_programs:TwoSteps"}
    path = settings_file({"programs": {"qa": program}})
    doomed = worker(path)
    endpoint.hold(containing="second")
    asked = start_producer(ask_one, path, question="q", timeout=40)
    endpoint.wait_for_calls(2)
    doomed.kill()
    endpoint.release()
    worker(path)
    told = asked.result(40)
    assert told["answer"] == "echo:q first echo:q second"
    texts = [request.inputs["question"] for request in endpoint.requests()]
    assert texts.count("q first") == 1
    assert texts.count("q second") == 2


def test_a_call_that_may_have_been_billed_is_charged_its_bound(
    worker, settings_file, run_producer, endpoint, redis_server
):
    path = settings_file({"retry": {"max_attempts": 1}, "models": {"control": {"timeout_seconds": 0.5}}})
    worker(path)
    endpoint.script(fault="hang", times=1)
    assert run_producer(ask_one, path, question="q")["error"] == "TransientPredictionFailure"
    (books,) = costs(redis_server).values()
    assert any("unknown" in field and int(value) > 0 for field, value in books.items())
    eventually(lambda: held(redis_server) == 0)


def test_the_time_a_prediction_may_take_ends_its_calls_and_its_waits(worker, settings_file, run_producer, endpoint):
    path = settings_file({**RETRY_FAST, "programs": {"qa": {"deadline_seconds": 1.0}}})
    worker(path)
    endpoint.script(fault="hang")
    began_at = time.monotonic()
    told = run_producer(ask_one, path, question="q")
    assert told["error"] == "DeadlineExceeded"
    assert "programs.qa.deadline_seconds" in told["message"]
    assert time.monotonic() - began_at < 25


def test_a_call_costs_two_round_trips_besides_those_of_its_job(worker, settings_file, run_producer, redis_server):
    one_call = _round_trips(worker(settings_file()), settings_file(), run_producer, redis_server)
    path = settings_file({"programs": {"qa": {"class": "tests.support.user_programs:Crowd"}}})
    forty_calls = _round_trips(worker(path), path, run_producer, redis_server)
    assert (forty_calls - one_call) / 39 == pytest.approx(2, abs=0.6)  # beats and pings go on besides


def _round_trips(running, path, run_producer, redis_server):
    run_producer(ask, path, questions=["warm"])
    with redis_server.counted() as usage:
        run_producer(ask, path, questions=["counted"])
    running.kill()
    return usage.round_trips
