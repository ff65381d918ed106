"""The channel of a process: its tasks' answers come without a subscription or a look for each, and none gets lost."""

import os
import queue
import threading
import time
import uuid

import orjson
import pytest

from dspyq.celery_app import waiting
from dspyq.celery_app.heard_replies import HeardReplies
from dspyq.celery_app.task_ids import TaskIds, process_task_ids
from tests.support.processes import eventually
from tests.support.proxy import Proxy

PREFIX = "celery-task-meta-"
LATE_SECONDS = 60
GOOD = orjson.dumps({"status": "SUCCESS", "result": 1, "traceback": None, "children": []})
LOOKS = {"SUBSCRIBE", "UNSUBSCRIBE", "MGET"}


@pytest.fixture
def no_second_look(monkeypatch):
    """Have no wait end by the look that is made once a second."""
    monkeypatch.setattr(waiting, "_READ_AGAIN_SECONDS", 1_000.0)


@pytest.fixture
def listening(predict, shared_worker):
    """``predict``, in a process that listens to its channel."""
    del shared_worker
    predict.delay(question="first").get(timeout=LATE_SECONDS)
    return predict


def looks(commands):
    """The subscriptions and reads of results among commands of clients."""
    own = [command for command in commands if not command.is_in_script and PREFIX in command.text]
    return [command.text for command in own if command.name in LOOKS]


def publish(client, task_id, payload=GOOD):
    """Store and publish a result as workers of this version do."""
    client.set(PREFIX + task_id, payload)
    client.publish(PREFIX + task_id, payload)
    client.publish(PREFIX + task_id[:13], task_id.encode() + payload)


def publish_as_before(client, task_id):
    """Store and publish a result as workers of versions without processes' channels do."""
    client.set(PREFIX + task_id, GOOD)
    client.publish(PREFIX + task_id, GOOD)


@pytest.mark.usefixtures("no_second_look")
def test_waiting_for_a_new_question_costs_no_subscription_and_no_look(listening, redis_server):
    with redis_server.monitored() as commands:
        for number in range(3):
            assert listening.delay(question=f"q{number}").get(timeout=LATE_SECONDS).answer
        handles = listening.many([{"question": f"m{number}"} for number in range(3)])
        assert len([handle.get(timeout=LATE_SECONDS) for handle in handles]) == 3
    assert looks(commands) == []


@pytest.mark.usefixtures("no_second_look")
def test_an_answer_that_came_before_its_caller_waits_is_there_without_a_look(listening, redis_server):
    heard = waiting.process_waiter()._heard  # noqa: SLF001 - when it has come is what is tested
    with redis_server.monitored() as commands:
        job = listening.delay(question="early")
        eventually(lambda: PREFIX + job.id in heard)
        assert job.get(timeout=LATE_SECONDS).answer
    assert looks(commands) == []


@pytest.mark.usefixtures("no_second_look")
def test_every_caller_of_a_run_gets_its_answer_however_late_it_waits(listening, endpoint):
    endpoint.hold()
    first, second, third = (listening.delay(question="shared") for _ in range(3))
    assert first.id == second.id == third.id
    endpoint.release()
    answers = [job.get(timeout=LATE_SECONDS).answer for job in (first, second, third)]
    assert len(set(answers)) == 1
    assert listening.AsyncResult(first.id).get(timeout=LATE_SECONDS).answer == answers[0]


@pytest.mark.usefixtures("no_second_look")
def test_a_failure_comes_on_the_channel_too(listening, redis_server, endpoint):
    endpoint.script(status=400)
    with redis_server.monitored() as commands, pytest.raises(Exception, match="LMInvalidRequestError"):
        listening.delay(question="bad").get(timeout=LATE_SECONDS)
    assert looks(commands) == []


@pytest.mark.usefixtures("no_second_look")
def test_answers_in_a_redis_of_their_own_come_on_the_channel_too(configure, settings_file, fresh_redis_server, worker):
    answers = fresh_redis_server()
    settings = settings_file({"result_url": answers.url})
    configure(settings)
    from dspyq import predict

    worker(settings)
    predict.delay(question="first").get(timeout=LATE_SECONDS)
    with answers.monitored() as commands:
        assert predict.delay(question="q").get(timeout=LATE_SECONDS).answer
    assert looks(commands) == []


@pytest.mark.usefixtures("no_second_look")
def test_a_lost_connection_loses_no_answer(listening, client, endpoint):
    endpoint.hold()
    jobs = [listening.delay(question=f"q{number}") for number in range(3)]
    arrived = queue.SimpleQueue()
    for job in jobs[:2]:
        job.then(arrived.put)
    assert client.client_kill_filter(_type="pubsub") >= 1
    endpoint.release()
    assert {arrived.get(timeout=LATE_SECONDS).id for _ in range(2)} == {job.id for job in jobs[:2]}
    assert jobs[2].get(timeout=LATE_SECONDS).answer


@pytest.mark.usefixtures("no_second_look", "configured")
def test_an_answer_between_a_look_and_a_subscription_is_read_once_that_is_confirmed(redis_server, client):
    from dspyq.store.clients import connect

    with Proxy(redis_server.port) as proxy:
        own = connect(f"redis://127.0.0.1:{proxy.port}/0")
        waiter, heard = waiting.Waiter(own, own), queue.SimpleQueue()
        theirs = TaskIds().make()
        proxy.hold(f"SUBSCRIBE\r\n${len(PREFIX + theirs)}\r\n{PREFIX}{theirs}".encode())
        waiter.add(theirs, heard.put)
        assert proxy.is_held.wait(LATE_SECONDS)
        publish(client, theirs)
        proxy.release()
        assert heard.get(timeout=LATE_SECONDS) == GOOD
        waiter.close()


@pytest.mark.usefixtures("configured")
def test_answers_of_older_workers_come_at_once_after_the_first(client):
    waiter, heard = waiting.process_waiter(), queue.SimpleQueue()
    make = process_task_ids().make
    publish(client, known := make())
    assert waiter.wait(known, LATE_SECONDS) == GOOD  # it listens
    eventually(lambda: waiter._heard.complete_since < float("inf"))  # noqa: SLF001 - when it does is what is tested
    first, second = make(), make()
    for task_id in (first, second):
        waiter.add(task_id, heard.put, asked_at=waiter._heard.complete_since)  # noqa: SLF001 - as above
    assert client.pubsub_numsub(PREFIX + first) == [((PREFIX + first).encode(), 0)]
    publish_as_before(client, first)
    assert heard.get(timeout=LATE_SECONDS) == GOOD
    eventually(lambda: client.pubsub_numsub(PREFIX + second)[0][1] == 1)
    publish_as_before(client, second)
    assert heard.get(timeout=LATE_SECONDS) == GOOD


def test_older_producers_hear_answers_on_each_task_s_own_channel(listening, client, endpoint):
    endpoint.hold()
    job = listening.delay(question="q")
    with client.pubsub() as channel:
        channel.subscribe(PREFIX + job.id)
        channel.get_message(timeout=LATE_SECONDS)
        endpoint.release()
        assert orjson.loads(channel.get_message(timeout=LATE_SECONDS)["data"])["status"] == "SUCCESS"


def test_a_forked_child_has_ids_and_a_channel_of_its_own(listening):
    before = process_task_ids().make()
    handle = listening.delay(question="of the parent")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            answers = [
                handle.get(timeout=LATE_SECONDS).answer,
                listening.delay(question="of the child").get(timeout=20),
            ]
            os.write(writer, process_task_ids().make().encode())
            code = 0 if all(answers) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.read(reader, 100).decode()[:13] != before[:13] == process_task_ids().make()[:13]
    for each in (reader, writer):
        os.close(each)
    assert listening.delay(question="after the fork").get(timeout=LATE_SECONDS).answer


def test_ids_are_distinct_and_in_the_form_of_random_uuids():
    ids = TaskIds()
    made = [ids.make() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    for text in made[:1_000]:
        assert str(uuid.UUID(text)) == text
        assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (4, uuid.RFC_4122)
    assert TaskIds().start != ids.start


def test_a_channel_that_is_not_listened_to_vouches_for_nothing():
    heard = HeardReplies()
    assert heard.complete_since == float("inf")
    heard.begin()
    heard.put("a", b"answer", is_taken=False)
    assert heard.take("a", asked_at=0.0) == b"answer"
    assert heard.take("a", asked_at=0.0) is None
    assert "a" in heard
    heard.end()
    assert "a" not in heard
    assert heard.complete_since == float("inf")


def test_what_came_before_its_caller_asked_is_of_an_earlier_run_and_not_taken():
    heard = HeardReplies()
    heard.begin()
    asked_before = time.monotonic()
    heard.put("a", b"a failure", is_taken=False)
    asked_later = time.monotonic() + 0.001
    assert heard.take("a", asked_at=asked_later) is None
    assert heard.take("a", asked_at=asked_before) == b"a failure"


@pytest.mark.parametrize(("count", "size"), [(10_100, 1), (10, 2**20)])
def test_answers_that_are_not_taken_are_bounded_and_those_dropped_have_to_be_looked_for(count, size):
    heard = HeardReplies()
    heard.begin()
    began_at = heard.complete_since
    for number in range(count):
        heard.put(str(number), bytes(size), is_taken=False)
    assert heard.take("0", asked_at=0.0) is None
    assert began_at < heard.complete_since
    kept = [number for number in range(count) if (heard.take(str(number), asked_at=0.0) or b"")]
    assert kept == list(range(kept[0], count))
    assert len(kept) <= 10_000
    assert len(kept) * size <= 8 * 2**20


def test_threads_that_ask_and_wait_at_once_all_get_their_answers(listening):
    answers = queue.SimpleQueue()

    def ask(start):
        for number in range(start, start + 10):
            answers.put(listening.delay(question=f"q{number // 2}").get(timeout=LATE_SECONDS).answer)

    threads = [threading.Thread(target=ask, args=(5 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.qsize() == 80
