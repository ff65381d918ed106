"""The timeouts of callers state what their jobs wait for. No worker runs here."""

import time

import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.celery_app.timeouts import timed_out


def test_a_timeout_states_that_the_job_continues(predict):
    started = time.monotonic()
    with pytest.raises(CeleryTimeoutError, match="goes on"):
        predict.delay(question="q").get(timeout=0.2)
    assert time.monotonic() - started < 30


def test_a_timeout_is_explained_by_one_round_trip_after_some_seconds_and_by_none_after_a_poll(predict, redis_server):
    job_id = predict.delay(question="q").id
    timed_out(job_id, 2)  # opens the connection
    for timeout_seconds, words, round_trips in [
        (0.2, "no answer within 0.2 s; the prediction goes on", 0),
        (2, "no answer within 2 s; the prediction goes on: no worker takes from its queue, qa.control: start one", 1),
    ]:
        with redis_server.counted() as usage:
            error = timed_out(job_id, timeout_seconds)
        assert str(error).startswith(words)
        assert usage.round_trips == round_trips


def test_the_timeout_of_a_group_counts_what_is_missing_and_states_what_the_first_of_it_waits_for(predict):
    from celery import group

    waiting = group(predict.s(question=f"q{number}") for number in range(3)).apply_async()
    with pytest.raises(CeleryTimeoutError) as short:
        waiting.get(timeout=0.2)
    assert str(short.value) == "3 of 3 answers are missing after 0.2 s; the predictions go on"
    with pytest.raises(CeleryTimeoutError, match=r"go on: of the first, no worker takes from its queue, qa\.control"):
        waiting.get(timeout=2)


@pytest.mark.parametrize("option", ["on_interval", "on_message"])
def test_the_timeout_of_a_caller_with_a_hook_is_that_of_any_other(option, predict):
    with pytest.raises(CeleryTimeoutError, match=r"no answer within 0\.2 s; the prediction goes on"):
        predict.delay(question="q").get(timeout=0.2, **{option: lambda *_: None})


def test_a_redis_that_does_not_answer_delays_the_error_of_a_timeout_by_a_second(predict, redis_server):
    job_id = predict.delay(question="q").id
    redis_server.process.stop()
    try:
        started = time.monotonic()
        assert "Redis does not answer" in str(timed_out(job_id, 5))
        assert time.monotonic() - started < 30
    finally:
        redis_server.process.cont()
