"""Providers that are ill, slow or strict, and budgets that are used up: what real workers make of them."""

import time

import pytest

from tests.support.processes import eventually

RETRY_FAST = {"retry": {"base_delay_seconds": 0.05}}


def ask(questions, **options):
    from producer import predict

    jobs = [predict.apply_async(kwargs={"question": question}, **options) for question in questions]
    return [job.get(timeout=40).answer for job in jobs]


def ask_one(question, timeout=20):
    """The answer with its metadata, or the error."""
    from dataclasses import asdict

    from config.errors import DspyqError
    from producer import predict

    try:
        prediction = predict.delay(question=question).get(timeout=timeout)
    except DspyqError as error:
        return {"error": type(error).__name__, "message": str(error), "after": error.retry_after_seconds}
    return {"answer": prediction.answer, **asdict(prediction.metadata)}


def test_what_passes_is_tried_again_and_is_one_entry(worker, settings_file, run_producer, endpoint, redis_server):
    path = settings_file(RETRY_FAST)
    worker(path)
    endpoint.script(times=2, status=500)
    told = run_producer(ask_one, path, question="q")
    assert told["answer"] == "echo:q"
    assert endpoint.calls() == 3


def test_an_outage_is_met_by_few_calls_and_loses_no_job(worker, settings_file, run_producer, start_producer, endpoint):
    breaker = {"failure_threshold": 3, "reset_timeout_seconds": 1, "max_reset_timeout_seconds": 2}
    path = settings_file({**RETRY_FAST, "breaker": breaker})
    worker(path)
    endpoint.script(status=503)
    producer = start_producer(ask, path, questions=[f"q{number}" for number in range(40)])
    endpoint.wait_for_calls(3)
    time.sleep(4)
    calls_into_the_outage = endpoint.calls()
    endpoint.clear()
    assert producer.result(40) == [f"echo:q{number}" for number in range(40)]
    assert calls_into_the_outage <= 3 + 8 + 5  # to the threshold, those under way then, and a probe for each period
    assert endpoint.calls() == calls_into_the_outage + 40 or endpoint.calls() <= calls_into_the_outage + 43
