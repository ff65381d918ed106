"""Workers over several spines: one worker answers the questions of all."""

import uuid

import pytest

from dspyq.celery_app.application import process_app
from dspyq.core.names import TASK_NAME
from dspyq.prediction.stored import read_meta
from dspyq.store.clients import answers_client
from dspyq.store.keys import result_key
from dspyq.store.spines import on_spine, process_spines
from tests.support.processes import wait_until

pytestmark = pytest.mark.usefixtures("configured_spines")


def id_on(number):
    """Return a new id of a task on a spine."""
    while process_spines().of(task_id := str(uuid.uuid4())).number != number:
        pass
    return task_id


def send(number, question):
    """Send a prediction by its task's name, as any application may, to a spine."""
    task_id = id_on(number)
    process_app().send_task(TASK_NAME, kwargs={"question": question}, queue="qa.control", task_id=task_id)
    return task_id


def meta(task_id):
    with on_spine(task_id):
        stored = answers_client().get(result_key(task_id))
    return read_meta(stored) if stored else None


def all_answered(task_ids):
    return all((found := meta(task_id)) and found["status"] == "SUCCESS" for task_id in task_ids)


def test_one_worker_answers_a_question_of_each_spine(spine_worker, spines):
    spine_worker()
    sent = [send(number, f"question of {number}") for number in range(3)]
    wait_until(lambda: all_answered(sent), 30, "the answers")
    assert all(len(keys) == 1 for keys in spines.keys("celery-task-meta-*"))
    assert spines.keys("dspy:v1:job:*") == [[], [], []]
