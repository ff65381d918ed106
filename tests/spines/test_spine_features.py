"""Features beside plain questions, over several spines."""

import json
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from celery import chord, group
from celery.exceptions import ChordError, NotRegistered, TaskRevokedError

from dspyq.celery_app import lost_jobs
from dspyq.celery_app.application import process_app
from dspyq.celery_app.revocation import replay_dead_jobs
from dspyq.client.predict import process_predict
from dspyq.delivery.kept_jobs import jobs_kept
from dspyq.delivery.served_spines import process_served_spines
from dspyq.errors import PoisonedJob
from dspyq.prediction.request import build_request
from dspyq.sealing.keyring import new_key_line
from dspyq.store.spines import process_spines
from tests.sealing.test_rotation import NO_MEMORY
from tests.support.configuration import environment, merged
from tests.support.processes import LocalProcess, wait_until
from tests.support.spine_questions import one_of_each
from tests.support.user_tasks import collect, note, note_error, shout

pytestmark = pytest.mark.journey

QUESTIONS = [f"question {number}" for number in range(12)]
TASKS = {"workers": {"imports": ["tests.support.user_tasks"]}}


def ask(question, **options):
    return process_predict().apply_async(kwargs={"question": question}, **options)


def counted(spines, name):
    return sum(len(server.cli("LRANGE", name, 0, -1)) for server in spines.servers)


def errors(worker):
    return [line for line in worker.logs().splitlines() if "NoSpine" in line and "referee_thread" not in line]


def test_links_streams_delays_and_dead_jobs_are_found_on_every_spine(
    configure_spines, spine_worker, settings_file, spines, spine_command
):
    path = settings_file(TASKS)
    configure_spines(path)
    unknown = [process_app().send_task("nobody.has.this") for _ in range(6)]
    revoked = [ask(each) for each in one_of_each("revoked")]
    for each in revoked:
        process_app().AsyncResult(each.id).revoke()
    worker = spine_worker(path)
    for each in unknown:
        with pytest.raises(NotRegistered):
            each.get(timeout=60)
    for each in revoked:
        with pytest.raises(TaskRevokedError):
            each.get(timeout=60)
    sent = [ask(each, link=note.s(), countdown=1) for each in one_of_each("linked")]
    failed = [
        ask(each, link_error=note_error.si("failed"), expires=datetime.fromtimestamp(1, UTC))
        for each in one_of_each("late")
    ]
    assert all(each.get(timeout=60).answer for each in sent)
    wait_until(lambda: counted(spines, "noted") == 3, 60, "the links")
    for each in failed:
        with pytest.raises(TaskRevokedError):
            each.get(timeout=60)
    for question in one_of_each("streamed"):
        chunks = list(ask(question, stream=True).stream(timeout=60))
        assert chunks[-1].kind == "completed"
    own = group(process_predict().s(question=each).set(task_id=f"own id {each}") for each in one_of_each("own"))
    assert len(chord(own, collect.s())().get(timeout=60)) == 3
    dead = json.loads(spine_command("dead", "list", "--json").stdout)
    assert {each["id"] for each in dead} == {each.id for each in unknown}
    assert errors(worker) == []


def test_dead_members_of_a_chord_fail_it_and_run_again_when_replayed(
    configure_spines, spine_worker, settings_file, endpoint
):
    path = settings_file(merged(TASKS, {"delivery": {"max_deliveries": 1}, "workers": {"concurrency": 4}}))
    configure_spines(path)
    endpoint.hold()
    members = one_of_each("member")
    result = chord([process_predict().s(question=each) for each in members], collect.s()).apply_async()
    worker = spine_worker(path)
    wait_until(lambda: endpoint.calls() == 3, 60, "the calls")
    worker.kill()
    endpoint.release()
    spine_worker(path)
    for each in (result, *result.parent.children):
        with pytest.raises((ChordError, PoisonedJob)):
            each.get(timeout=60)
    assert replay_dead_jobs([each.id for each in result.parent.children]) == 3
    replayed = [process_predict().AsyncResult(each.id).get(timeout=60).answer for each in result.parent.children]
    assert replayed == [f"echo:{each}" for each in members]


def test_sealed_content_of_tenants_and_units_is_forgotten_on_every_spine(
    configure_spines, spine_worker, settings_file, spines, spine_command, tmp_path
):
    keys = tmp_path / "keys"
    keys.touch(0o600)
    keys.write_text(f"{new_key_line()}\n{new_key_line('index')}\n")
    stated = {"encryption": {"keys_file": str(keys), "index_units": True}, "programs": {"qa": {"encrypt": True}}}
    path = settings_file(merged(NO_MEMORY, stated))
    configure_spines(path)
    worker = spine_worker(path)

    def answers(**options):
        handles = [ask(each, **options) for each in QUESTIONS]
        assert [each.get(timeout=60).answer for each in handles] == [f"echo:{each}" for each in QUESTIONS]
        return [each.id for each in handles]

    first = {"acme": answers(tenant="acme"), "other": answers(tenant="other"), "": answers(unit="ann")}
    results = [server.client(decode_responses=False) for server in spines.servers]
    assert not [
        name
        for client in results
        for name in client.scan_iter("celery-task-meta-*")
        if b"echo" in client.get(name)
    ]  # fmt: skip
    assert spines.keys("dspy:v1:tenant-keys*") == [[], [], []]
    assert spines.money.client().exists("dspy:v1:tenant-keys")
    told = json.loads(spine_command("forget", "--tenant", "acme", "--yes", "--json", settings=path).stdout)
    assert (told["answers"], bool(told["key_id"])) == (12, True)
    told = json.loads(spine_command("forget", "--unit", "ann", "--yes", "--json", settings=path).stdout)
    assert told["results"] == 12
    assert answers(tenant="other") == first["other"]
    assert not set(answers(tenant="acme")) & set(first["acme"])
    assert not set(answers(unit="ann")) & set(first[""])
    assert errors(worker) == []


def test_a_scheduled_batch_is_run_once_over_all_spines(
    configure_spines, spine_worker, settings_file, spines, endpoint, tmp_path
):
    hour = (time.gmtime().tm_hour + 12) % 24
    batch = {"input": str(tmp_path / "rows.jsonl"), "output": str(tmp_path / "answers-{date}.jsonl")}
    path = settings_file({"batches": {"nightly": batch | {"schedule": f"0 {hour} * * *"}}})
    configure_spines(path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"question": each}) + "\n" for each in QUESTIONS))
    last = (int(time.time()) - hour * 3600) // 86_400 * 86_400 + hour * 3600
    spines.money.cli("SET", "dspy:v1:batch-schedule-seen:nightly", last - 86_400 + 1)
    worker = spine_worker(path)
    command = [str(Path(sys.executable).with_name("celery")), "-A", "dspyq", "beat", "--schedule", str(tmp_path / "b")]
    env = environment(path, None, spines.env)
    with LocalProcess("beat", command, ready_line="beat: Starting", env=env, module="celery") as beat:
        client = spines.money.client()

        def state():
            return [client.hget(name, "state") for name in client.keys("dspy:v1:batch-scheduled:*")]

        wait_until(lambda: state() == ["done"], 60, lambda: f"{state()}\n{beat.logs()}\n{worker.logs()}")
        assert "NoSpine" not in beat.logs()
    (answers,) = tmp_path.glob("answers-*.jsonl")
    assert len(answers.read_text().splitlines()) == len(QUESTIONS)
    assert endpoint.calls() == len(QUESTIONS)


def test_a_foreign_task_of_a_spine_that_refuses_and_has_no_beat_here_is_stored_later(configured_spines, spines):
    del configured_spines
    app, served = process_app(), process_served_spines()
    task_id = next(each for each in iter(lambda: str(uuid.uuid4()), "") if process_spines().of(each).number == 1)
    with app.connection_for_write() as connection:
        with jobs_kept() as jobs:
            app.send_task("a.task", task_id=task_id, connection=connection)
        (job,) = jobs
        served.choose(frozenset({0}))
        spines.servers[1].fill()
        try:
            connection.transport._store_adopted(job)  # noqa: SLF001 - of a worker that does not serve that spine
            assert spines.keys("dspy:v1:job:*") == [[], [], []]
        finally:
            spines.servers[1].make_room()
        wait_until(lambda: spines.servers[1].keys(f"dspy:v1:job:{task_id}"), 30, "the job")


def test_a_wait_for_an_id_of_the_callers_own_ends_by_its_revocation_though_its_job_is_elsewhere(
    configured_spines, monkeypatch
):
    del configured_spines
    monkeypatch.setattr(lost_jobs, "FIRST_CHECK_SECONDS", 3600.0)  # by the message, and not by looking for the job
    spines = process_spines()
    number = spines.of(build_request({"question": "own"}).input_hash).number
    task_id = next(each for each in iter(lambda: str(uuid.uuid4()), "") if spines.of(each).number != number)
    handle, heard = ask("own", task_id=task_id), []

    def wait():
        try:
            handle.get(timeout=60)
        except Exception as error:  # noqa: BLE001 - which one is what is tested
            heard.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: handle._waiter._awaited, 30, "the wait")  # noqa: SLF001 - when it begins
    while waiting.is_alive():  # the wait may not listen yet
        process_app().AsyncResult(task_id).revoke()
        waiting.join(1)
    assert [type(each) for each in heard] == [TaskRevokedError], heard


@pytest.mark.long
def test_a_fleet_of_two_processes_answers_all_spines_and_users_tasks(configure_spines, settings_file, spines):
    path = settings_file(TASKS)
    configure_spines(path)
    command = [sys.executable, "-m", "dspyq", "worker", "--processes", "2", "--threads=2", "--without-mingle"]
    env = environment(path, None, spines.env)
    with LocalProcess("fleet", command, ready_line='"workers_ready"', env=env) as fleet:
        fleet.ready(90)
        assert len(psutil.Process(fleet.pid).children()) >= 2
        answers = [ask(each).get(timeout=60) for each in one_of_each("fleet")]
        shouted = [shout.delay({"outputs": each.outputs}) for each in answers]
        assert [each.get(timeout=60) for each in shouted] == [each.answer.upper() for each in answers]
        assert not [line for line in fleet.logs().splitlines() if "NoSpine" in line and "referee" not in line]
