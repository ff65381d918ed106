"""Workers over several spines: one worker answers the questions of all."""

import json
import signal
import urllib.request

import pytest

from dspyq import predict
from dspyq.celery_app.application import process_app
from dspyq.core.names import TASK_NAME
from dspyq.prediction.stored import read_meta
from dspyq.store.clients import answers_client
from dspyq.store.keys import result_key
from dspyq.store.spines import on_spine
from tests.support.processes import free_port, wait_until
from tests.support.spine_questions import question_of

pytestmark = pytest.mark.usefixtures("configured_spines")


def send(number, text, **options):
    """Ask a spine's question; return the task's id."""
    return predict.apply_async(kwargs={"question": question_of(number, text)}, **options).id


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


def states(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30) as reply:
        return list(json.loads(reply.read())["checks"]["redis"].get("spines", {}).values())


def test_a_prediction_sent_by_its_tasks_name_is_answered_wherever_its_id_leads(spine_worker):
    spine_worker()
    app = process_app()
    sent = [app.send_task(TASK_NAME, kwargs={"question": f"{each}"}, queue="qa.control").id for each in range(6)]
    wait_until(lambda: all_answered(sent), 60, "the answers")


def leases(spines):
    return [len(server.cli("ZRANGE", "dspy:v1:leases", 0, -1)) for server in spines.servers]


def test_a_spine_that_is_away_costs_its_own_questions_alone(spine_worker, spines, settings_file):
    port = free_port()
    worker = spine_worker(settings_file({"metrics": {"port": port}}))
    of_away = [send(1, "put before", countdown=2)]
    spines.servers[1].process.kill()
    of_others = [send(number, f"beside {number}") for number in (0, 2)]
    wait_until(lambda: all_answered(of_others), 60, "the answers of the other spines")
    worker.wait_for_line('"event":"spine_away"')
    wait_until(lambda: states(port) == ["up", "away", "up"], 60, "the worker's health to name the spine")
    spines.servers[1].restart()
    of_away.append(send(1, "put afterwards"))
    wait_until(lambda: all_answered(of_away), 60, "the answers of the spine that is back")
    assert worker.logs().count('"event":"spine_away"') == 1
    assert worker.is_running


@pytest.mark.journey
def test_a_worker_that_ends_hands_back_its_jobs_on_every_spine(spine_worker, spines, settings_file, endpoint):
    endpoint.hold()
    worker = spine_worker(settings_file({"workers": {"concurrency": 1, "prefetch_multiplier": 6}}))
    sent = [send(number, f"{each} of {number}") for number in range(3) for each in range(2)]
    wait_until(lambda: sum(leases(spines)) == len(sent), 60, "all jobs to be taken")
    worker.send(signal.SIGTERM)
    wait_until(lambda: sum(leases(spines)) == 1, 60, "all jobs but the running one to be handed back")
    endpoint.release()
    assert worker.wait() == 0
    assert leases(spines) == [0, 0, 0]
    spine_worker()
    wait_until(lambda: all_answered(sent), 60, "the answers")


@pytest.mark.journey
def test_a_killed_workers_jobs_on_every_spine_are_taken_by_another(spine_worker, spines, endpoint):
    endpoint.hold()
    worker = spine_worker()
    sent = [send(number, f"question of {number}") for number in range(3)]
    wait_until(lambda: leases(spines) == [1, 1, 1], 60, "a job of each spine to run")
    worker.kill()
    endpoint.release()
    spine_worker()
    wait_until(lambda: all_answered(sent), 60, "the answers")


def test_a_worker_does_not_start_without_a_spine_and_names_the_setting(spine_worker, spines):
    spines.servers[2].process.kill()
    worker = spine_worker(waits=False)
    assert worker.wait() != 0
    assert "DSPYQ_REDIS_URLS" in worker.logs()
    assert "Traceback" not in worker.logs()


@pytest.mark.journey
def test_a_reply_whose_worker_was_killed_before_it_was_settled_is_paid_and_charged_once(
    spine_worker, spines, endpoint, settings_file
):
    settings = settings_file({"budget": {"daily_usd": 1}})
    worker = spine_worker(settings)
    endpoint.hold()
    asked = send(1, "settled late")
    endpoint.wait_for_calls(1)
    with spines.money.client() as money:
        connected = money.info("clients")["connected_clients"]
        money.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        endpoint.release()
        wait_until(lambda: any(spines.keys("dspy:v1:calls:*")), 8, "the reply to be recorded")
        worker.kill()
        wait_until(lambda: money.info("clients")["connected_clients"] < connected, 30, "the killed one's connections")
        money.execute_command("CLIENT", "UNPAUSE")
        assert money.zcard("dspy:v1:budget:leases") == 1
        spine_worker(settings)
        wait_until(lambda: all_answered([asked]), 60, "the answer")
        assert money.zcard("dspy:v1:budget:leases") == 0
        books = [money.hgetall(key) for key in money.scan_iter("dspy:v1:costs:*")]
        statistics = money.hgetall("dspy:v1:budget-statistics")
    counters = {field.split(" ")[-1]: int(value) for each in books for field, value in each.items()}
    counts = endpoint.counts()
    billed = counts.prompt_tokens * 1000 + counts.completion_tokens * 2000
    assert (counts.calls, counters["calls"], counters["billed_nano_usd"]) == (1, 1, billed)
    assert statistics == {}
