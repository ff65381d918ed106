"""Calls with an id of their own, and jobs sent by name, also while a list of servers changes: nothing is paid twice."""

import itertools
import json
import uuid

import pytest
from celery import chain, chord

from dspyq import predict
from dspyq.cache.claim import Run
from dspyq.cache.moves import look_where_it_is
from dspyq.celery_app.application import process_app
from dspyq.prediction.request import build_request
from dspyq.store.spines import on_spine, process_spines
from tests.support.processes import wait_until
from tests.support.user_tasks import collect

pytestmark = pytest.mark.journey


@pytest.fixture(autouse=True)
def _users_tasks(two, three):
    for variables in (two, three):
        variables["DSPYQ_WORKERS__IMPORTS"] = json.dumps(["tests.support.user_tasks"])


def hash_of(question):
    return build_request({"question": question}).input_hash


def moved_questions(text, count):
    """Return questions that have moved from the first server; this process must have the new list."""
    candidates = (f"{text} ({each})" for each in itertools.count())
    wanted = (each for each in candidates if (former := process_spines().former(hash_of(each))) and not former.number)
    return list(itertools.islice(wanted, count))


def moved_id():
    """Return an id that has moved from the second server, where no moved question of these tests was."""
    ids = (str(uuid.uuid4()) for _ in itertools.count())
    return next(each for each in ids if (former := process_spines().former(each)) and former.number == 1)


def job_field(server, task_id, field):
    with server.client() as client:
        return client.hget(f"dspy:v1:job:{task_id}", field)


def ask_by_an_id(question, task_id):
    from dspyq import predict

    asked = predict.apply_async(kwargs={"question": question}, task_id=task_id)
    return asked.get(timeout=60).answer


def is_cached(question):
    return predict.delay(question=question).get(timeout=30).metadata.cached


def test_what_the_former_owner_has_is_not_computed_again(configure_spines, spine_worker, endpoint, two, three):
    configure_spines(**three)
    answered, running = moved_questions("known", 2)
    endpoint.hold(containing=running)
    configure_spines(**two)
    spine_worker(env=two)
    assert predict.delay(question=answered).get(timeout=60).answer == f"echo:{answered}"
    predict.delay(question=running)
    wait_until(lambda: endpoint.calls() == 2, 60, "the run at the former owner")
    configure_spines(**three)
    spine_worker(env=three)
    handles = [
        predict.apply_async(kwargs={"question": each}, **options)
        for each in (answered, running)
        for options in ({"task_id": moved_id()}, {"countdown": 0.1})
    ]
    assert all(each.get(timeout=60).metadata.cached for each in handles[:2])
    endpoint.release()
    assert [each.get(timeout=60).answer for each in handles[2:]] == [f"echo:{running}"] * 2
    assert endpoint.calls() == 2


def test_a_job_that_waits_at_the_former_owner_is_waited_for(configure_spines, spine_worker, endpoint, two, three):
    configure_spines(**three)
    questions = moved_questions("queued", 4)
    configure_spines(**two)
    plain = predict.many([{"question": each} for each in questions])
    configure_spines(**three)
    own = [predict.apply_async(kwargs={"question": each}, priority=0, countdown=0.01) for each in questions]
    spine_worker(env=three)
    assert [each.get(timeout=60).answer for each in (*own, *plain)] == [f"echo:{each}" for each in questions] * 2
    assert endpoint.calls() == len(questions)


def test_a_job_put_by_an_old_process_gets_the_answer_of_the_new_owner(
    configure_spines, spine_worker, spine_producer, endpoint, spines, two, three
):
    configure_spines(**three)
    (question,) = moved_questions("put before", 1)
    task_id = moved_id()
    old = spine_producer(ask_by_an_id, env=two, question=question, task_id=task_id)
    wait_until(lambda: job_field(spines.servers[0], task_id, "message"), 60, "the job")
    plain = predict.delay(question=question)
    assert plain.id != task_id
    spine_worker(env=three)
    assert plain.get(timeout=60).answer == old.result(60) == f"echo:{question}"
    assert predict.AsyncResult(task_id).get(timeout=30).answer == f"echo:{question}"
    assert endpoint.calls() == 1


def test_a_worker_with_the_old_list_leaves_such_a_job_to_others(
    configure_spines, spine_worker, endpoint, spines, two, three
):
    configure_spines(**three)
    (question,) = moved_questions("left", 1)
    configure_spines(**two)
    own = predict.apply_async(kwargs={"question": question}, task_id="left to others")
    configure_spines(**three)
    plain = predict.delay(question=question)
    spine_worker(env=two)
    wait_until(lambda: int(job_field(spines.servers[0], own.id, "runs") or 0) > 1, 60, "two runs that give it back")
    assert endpoint.calls() == 0
    spine_worker(env=three)
    handle = predict.AsyncResult(own.id)
    assert plain.get(timeout=60).answer == handle.get(timeout=60).answer == f"echo:{question}"
    assert endpoint.calls() == 1


@pytest.mark.parametrize("status", [200, 400])
def test_a_job_at_the_former_owner_asks_at_the_new_one_and_ends_alike(
    configure_spines, spine_worker, endpoint, two, three, status
):
    configure_spines(**three)
    (question,) = moved_questions("alone", 1)
    if status != 200:
        endpoint.script(status=status, containing=question)
    configure_spines(**two)
    own = predict.apply_async(kwargs={"question": question}, task_id="alone")
    configure_spines(**three)
    assert predict.delay(question=question).cancel()
    spine_worker(env=three)
    handle = predict.AsyncResult(own.id)
    if status == 200:
        assert handle.get(timeout=60).answer == f"echo:{question}"
        assert is_cached(question)
    else:
        with pytest.raises(Exception, match="400"):
            handle.get(timeout=60)
    assert endpoint.calls() == 1


def ask_in_chords(questions):
    from celery import chain, chord

    from dspyq import predict
    from tests.support.user_tasks import collect

    pairs = list(zip(questions[::2], questions[1::2], strict=True))
    chords = [chord([predict.si(question=each) for each in pair], collect.s())() for pair in pairs]
    chains = [chain(predict.si(question=each) for each in pair).apply_async() for pair in pairs]
    answers = [each.get(timeout=90) for each in chords]
    return [*answers, *(each.get(timeout=90).answer for each in chains)]


def test_chords_and_chains_end_whichever_list_their_tasks_are_run_with(
    configure_spines, spine_worker, spine_producer, endpoint, two, three
):
    configure_spines(**three)
    questions = [*moved_questions("of a chord", 8), *(f"of another {each}" for each in range(8))]
    for each in (two, three):
        spine_worker(env=each)
    asked = [spine_producer(ask_in_chords, env=each, questions=questions) for each in (two, three)]
    answers = [f"echo:{each}" for each in questions]
    chords, chains = [answers[each : each + 2] for each in range(0, len(answers), 2)], answers[1::2]
    assert [each.result(120) for each in asked] == [[*chords, *chains]] * 2
    assert endpoint.calls() == len(questions)


def test_a_chord_with_groups_within_is_sent_from_any_process(configure_spines, spine_worker, three):
    configure_spines(**three)
    spine_worker(env=three)
    nested = chord([chain(predict.si(question="one"), predict.si(question="two")), predict.si(question="three")])
    assert sorted(nested(collect.s()).get(timeout=60)) == ["echo:three", "echo:two"]


def test_a_look_goes_to_one_server_where_no_list_changes(configure_spines, spines):
    configure_spines()
    requests = [build_request({"question": f"looked up {each}"}) for each in range(6)]

    def scripts_run():
        statistics = [server.client().info("commandstats") for server in spines.servers]
        return [each.get("cmdstat_evalsha", {"calls": 0})["calls"] for each in statistics]

    def look(request):
        before = scripts_run()
        with on_spine(request.input_hash):
            assert look_where_it_is(request, Run("a task"), is_first_look=True).verdict == "claim"
        return [after - was for after, was in zip(scripts_run(), before, strict=True)]

    for each in requests:  # which loads the script
        look(each)
    for each in requests:
        number = process_spines().of(each.input_hash).number
        assert look(each) == [int(place == number) for place in range(len(spines.servers))]


def id_elsewhere(question):
    """Return a task's id that leads to another server than a question."""
    owner = process_spines().owner(hash_of(question))
    return next(each for each in (str(uuid.uuid4()) for _ in itertools.count()) if process_spines().of(each) != owner)


def test_a_prediction_sent_by_its_name_alone_is_found_by_the_next_caller(configure_spines, spine_worker, endpoint):
    configure_spines()
    spine_worker()
    by_name, known = "by name", "known before"

    def send(question):
        sent = process_app().send_task(
            "dspyq.predict", kwargs={"question": question}, queue="qa.control", task_id=id_elsewhere(question)
        )
        return sent.get(timeout=60).answer

    assert send(by_name) == f"echo:{by_name}"
    assert is_cached(by_name)
    assert predict.delay(question=known).get(timeout=60).answer == send(known) == f"echo:{known}"
    assert endpoint.calls() == 2
