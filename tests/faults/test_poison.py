"""Questions that always fail at the provider: each ends with its error, and none stops the model for others."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from tests.support.journeys import few_of

BREAKER = {"reset_timeout_seconds": 1, "max_reset_timeout_seconds": 2}
RETRY = {"base_delay_seconds": 0.05}
ATTEMPTS, PROBES = 3, 3  # the defaults
POISONOUS = 3


def ask_all(questions, timeout=60):
    """Each question's answer, or the type of its error, in the order they stand in the queue."""
    from dspyq import predict
    from dspyq.errors import DspyqError

    def told(job):
        try:
            return job.get(timeout=timeout).answer
        except DspyqError as error:
            return type(error).__name__

    jobs = [predict.delay(question=question) for question in questions]
    return [told(job) for job in jobs]


def ask_beside(questions, at_once):
    """The type of each question's error; others are asked, and must be answered, until all of them have ended."""
    import itertools

    from dspyq import predict
    from dspyq.errors import DspyqError

    def told(job):
        try:
            return job.get(timeout=1).answer
        except DspyqError as error:
            return type(error).__name__

    jobs = [predict.delay(question=question) for question in questions]
    numbers = itertools.count()
    while not all(job.ready() for job in jobs):
        for good in [predict.delay(question=f"good {next(numbers)}") for _ in range(at_once)]:
            good.get(timeout=80)
    return [told(job) for job in jobs]


def cost_of(question):
    """The answer to a question, and its cost."""
    from dspyq import predict

    prediction = predict.delay(question=question).get(timeout=40)
    return prediction.answer, prediction.metadata.cost_usd, prediction.metadata.usage.prompt_tokens


def calls_of(endpoint, word):
    return Counter(request.inputs["question"] for request in endpoint.requests() if word in request.inputs["question"])


def calls_beside_others(endpoint, question):
    """A question's calls since whose predecessor another question was called, which a busy machine may delay."""
    asked = [request.inputs["question"] for request in endpoint.requests()]
    places = [place for place, each in enumerate(asked) if each == question]
    return sum(any("good" in each for each in asked[one:other]) for one, other in itertools.pairwise(places))


def test_questions_that_always_fail_end_with_their_error_and_the_others_are_answered(
    worker, settings_file, start_producer, endpoint
):
    path = settings_file({"breaker": BREAKER, "retry": RETRY, "workers": {"concurrency": 4}})
    worker(path)
    endpoint.script(latency_seconds=0.4)
    endpoint.script(containing="poison", status=500)
    poison, good = [f"poison {n}" for n in range(POISONOUS)], [f"good {n}" for n in range(20)]
    told = start_producer(ask_all, path, questions=[*poison, *good], timeout=60).result(60)
    assert told == ["TransientPredictionFailure"] * POISONOUS + [f"echo:{question}" for question in good]
    assert max(calls_of(endpoint, "poison").values()) <= ATTEMPTS + PROBES


def test_the_next_probe_is_another_questions_and_no_question_probes_without_end(
    worker, settings_file, start_producer, endpoint
):
    path = settings_file(
        {
            "breaker": {"failure_threshold": 1, "reset_timeout_seconds": 0.2, "max_reset_timeout_seconds": 0.2},
            "retry": {**RETRY, "max_attempts": 2},
            "workers": {"concurrency": 1},
        }
    )
    worker(path)
    endpoint.script(containing="poison", status=500)
    questions = ["poison 0", "poison 1", "good 0", "good 1"]
    told = start_producer(ask_all, path, questions=questions, timeout=60).result(60)
    assert told == ["TransientPredictionFailure"] * 2 + ["echo:good 0", "echo:good 1"]
    assert [request.inputs["question"] for request in endpoint.requests()][:3] == questions[:3]
    assert max(calls_of(endpoint, "poison").values()) <= 2 + PROBES


def test_a_question_that_is_refused_while_others_are_answered_does_not_close_the_gate_for_ever(
    worker, settings_file, start_producer, endpoint
):
    path = settings_file(
        {
            "rate_limit": {"account_pause_seconds": 0.2, "max_account_pause_seconds": 0.2},
            "workers": {"concurrency": 2},
        }
    )
    worker(path)
    endpoint.script(containing="poison", status=403)
    questions = ["poison", *[f"good {n}" for n in range(12)]]
    told = start_producer(ask_all, path, questions=questions, timeout=60).result(60)
    assert told == ["PredictionFailed"] + [f"echo:{question}" for question in questions[1:]]


def test_an_error_within_a_200_closes_the_gate_or_opens_the_breaker_and_costs_nothing(
    worker, settings_file, run_producer, endpoint, redis_server
):
    path = settings_file({"retry": RETRY})
    worker(path)
    endpoint.script(
        times=6, body=json.dumps({"error": {"code": 429, "message": "slow"}}), headers={"retry-after": "0.1"}
    )
    answer, cost_usd, prompt_tokens = run_producer(cost_of, path, question="gate")
    assert answer == "echo:gate"
    completion_tokens = endpoint.counts().completion_tokens
    assert cost_usd == pytest.approx((prompt_tokens * 1 + completion_tokens * 2) / 1e6)
    assert not redis_server.client().exists("dspy:v1:breaker:control")
    endpoint.script(times=1, body=json.dumps({"choices": [{"error": {"code": 502}, "finish_reason": "error"}]}))
    assert run_producer(cost_of, path, question="ill")[0] == "echo:ill"
    assert redis_server.client().exists("dspy:v1:breaker:control")


@pytest.mark.parametrize(
    ("concurrency", "poisonous", "headers"), few_of([(1, 1, {"retry-after": "0.2"}), (4, POISONOUS, {})], 1)
)
def test_questions_that_are_always_refused_with_a_429_end_and_the_others_are_answered(
    concurrency, poisonous, headers, worker, settings_file, start_producer, endpoint
):
    path = settings_file({"retry": {"most_probes": 1}, "workers": {"concurrency": concurrency}})
    asked = worker(path)
    endpoint.script(containing="poison", status=429, headers=headers)
    poison = [f"poison {n}" for n in range(poisonous)]
    told = start_producer(ask_beside, path, questions=poison, at_once=2 * concurrency).result(110)
    assert told == ["TransientPredictionFailure"] * poisonous
    assert max(calls_beside_others(endpoint, question) for question in poison) <= 2 * 2
    refusals = [json.loads(line) for line in asked.logs().splitlines() if '"event":"refusal"' in line]
    assert max(refusal["wait_seconds"] for refusal in refusals) > 2  # it leaves the open gate to others
