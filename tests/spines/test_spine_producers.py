"""Callers over several spines: each form of a call finds its answer, and one question costs one call."""

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import chain, chord, group
from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.client.predict import process_predict
from dspyq.client.spread_bulk import process_bulk
from dspyq.prediction.request import build_request
from dspyq.store.spines import process_spines
from tests.support.processes import wait_until
from tests.support.spine_questions import spine_of
from tests.support.user_tasks import collect, shout

pytestmark = pytest.mark.usefixtures("configured_spines")

QUESTIONS = [f"question {number}" for number in range(40)]


@pytest.fixture
def predict():
    return process_predict()


@pytest.fixture
def _worker(spine_worker, settings_file):
    spine_worker(settings_file({"workers": {"imports": ["tests.support.user_tasks"]}}))


def answers(handles):
    return [handle.get(timeout=30).answer for handle in handles]


@pytest.mark.usefixtures("_worker")
def test_questions_of_all_spines_are_answered_and_found_again(predict, endpoint, spines):
    assert {spine_of(each) for each in QUESTIONS} == {0, 1, 2}  # all but surely, of so many
    handles = [predict.delay(question=each) for each in QUESTIONS]
    assert answers(handles) == [f"echo:{each}" for each in QUESTIONS]
    assert all(handle.id[-2:] == handle.request.input_hash[-2:] for handle in handles)
    again = predict.many([{"question": each} for each in QUESTIONS])
    assert [each.get(timeout=5).metadata.cached for each in again] == [True] * len(QUESTIONS)
    assert endpoint.calls() == len(QUESTIONS)
    assert all(keys for keys in spines.keys("dspy:v1:prediction:*"))


@pytest.mark.journey
@pytest.mark.usefixtures("_worker")
def test_many_and_an_event_loop_get_the_answers_in_order(predict):
    rows = [{"question": each} for each in QUESTIONS]
    assert answers(predict.many(rows)) == [f"echo:{each}" for each in QUESTIONS]

    async def ask():
        return await predict.ask_many([{"question": f"{each}, later"} for each in QUESTIONS])

    assert [each.answer for each in asyncio.run(ask())] == [f"echo:{each}, later" for each in QUESTIONS]


@pytest.mark.journey
@pytest.mark.usefixtures("_worker")
def test_an_answer_is_found_by_the_id_alone(predict):
    handles = predict.many([{"question": each} for each in QUESTIONS])
    assert [predict.AsyncResult(each.id).get(timeout=30).answer for each in handles] == answers(handles)


@pytest.mark.usefixtures("_worker")
def test_an_id_of_the_callers_own_has_its_result_on_its_spine_and_its_question_on_its_own(predict, endpoint):
    question = QUESTIONS[0]
    task_id = str(uuid.uuid4())
    while process_spines().of(task_id).number == spine_of(question):
        task_id = str(uuid.uuid4())
    sent = predict.apply_async(kwargs={"question": question}, task_id=task_id)
    assert sent.get(timeout=30).answer == f"echo:{question}"
    assert predict.AsyncResult(task_id).get(timeout=5).answer == f"echo:{question}"
    assert predict.delay(question=question).get(timeout=30).metadata.cached
    named = predict.apply_async(kwargs={"question": "named"}, task_id="order of the day")
    assert named.get(timeout=30).answer == "echo:named"
    assert endpoint.calls() == 2


def test_a_caller_who_gives_up_sees_what_its_job_waits_for(predict):
    plain, own = (predict.apply_async(kwargs={"question": "late"}, **each) for each in ({}, {"task_id": "late"}))
    members = group(predict.s(question=each) for each in QUESTIONS[:2])()

    def reason(handle):
        with pytest.raises(CeleryTimeoutError) as late:
            handle.get(timeout=2)
        return str(late.value)

    with ThreadPoolExecutor(4) as pool:
        reasons = list(pool.map(reason, (plain, own, predict.AsyncResult(own.id), members)))
    assert all("no worker takes from its queue, qa.control" in each for each in reasons), reasons


@pytest.mark.journey
@pytest.mark.usefixtures("_worker")
def test_groups_chains_and_chords_cross_spines(predict):
    assert [each.answer for each in group(predict.s(question=each) for each in QUESTIONS)().get(timeout=60)] == [
        f"echo:{each}" for each in QUESTIONS
    ]
    assert chain(predict.s(question="chained"), shout.s()).apply_async().get(timeout=60)
    assert chord([predict.s(question=f"of a chord {each}") for each in QUESTIONS], collect.s())().get(timeout=60)


def test_a_job_is_cancelled_before_and_while_it_runs(predict, spine_worker, endpoint):
    waiting = [predict.delay(question=each) for each in QUESTIONS[:3]]
    assert all(each.cancel() for each in waiting)
    spine_worker()
    endpoint.hold(containing="held")
    running = [predict.delay(question=f"held {each}") for each in QUESTIONS[:3]]
    wait_until(lambda: endpoint.calls() == 3, 30, "the calls")
    assert all(each.cancel() for each in running)
    endpoint.release()
    for each in (*waiting, *running):
        with pytest.raises(Exception, match="revoked"):
            each.get(timeout=30)


@pytest.mark.journey
@pytest.mark.usefixtures("_worker")
def test_a_question_of_many_threads_and_processes_is_one_call(predict, endpoint, spine_producer):
    def ask(questions):
        from dspyq import predict

        return [each.get(timeout=60).answer for each in predict.many([{"question": each} for each in questions] * 5)]

    others = [spine_producer(ask, questions=QUESTIONS) for _ in range(2)]
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda each: predict.delay(question=each).get(timeout=60).answer, QUESTIONS * 5))
    assert found == [f"echo:{each}" for each in QUESTIONS] * 5
    assert all(other.result(90) == found for other in others)
    assert endpoint.calls() == len(QUESTIONS)


@pytest.mark.usefixtures("_worker")
def test_three_hundred_callers_in_three_processes_cost_one_question_one_call(predict, endpoint, spine_producer):
    def ask():
        from concurrent.futures import ThreadPoolExecutor

        from dspyq import predict

        with ThreadPoolExecutor(100) as pool:
            return sorted(pool.map(lambda _: predict.delay(question="one").get(timeout=60).answer, range(100)))

    endpoint.script(latency_seconds=2)
    others = [spine_producer(ask) for _ in range(2)]
    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda _: predict.delay(question="one").get(timeout=60).answer, range(100)))
    assert found == others[0].result(90) == others[1].result(90) == ["echo:one"] * 100
    assert endpoint.calls() == 1


def test_rows_are_looked_up_and_withdrawn_in_bulk(predict):
    requests = [build_request({"question": each}) for each in QUESTIONS]
    handles = predict.many([{"question": each} for each in QUESTIONS])
    asked = [(request, handle.id) for request, handle in zip(requests, handles, strict=True)]
    assert process_bulk().peek(requests) == [None] * len(QUESTIONS)
    assert process_bulk().recall(asked[:6]) == [True] * 6
    assert process_bulk().withdraw(asked[6:]) == len(QUESTIONS) - 6
