"""Jobs keep flowing: past paused queues, busy neighbours, lost connections and strangers' texts."""

import base64
import json
import time

import pytest

from tests.support.processes import eventually

IMPORTS = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.user_tasks"]'}


def test_a_paused_queue_waits_while_others_flow_also_across_a_reconnect(predict, worker, endpoint, redis_server):
    from tests.support.user_tasks import pause, resume, shout

    worker(env=IMPORTS)
    predict.delay(question="before").get(timeout=20)
    pause.delay("qa.control").get(timeout=20)
    job = predict.delay(question="paused")
    for _ in range(5):
        assert shout.delay({"outputs": {"answer": "flows"}}).get(timeout=60) == "FLOWS"
    redis_server.cut_connections()
    assert shout.delay({"outputs": {"answer": "flows"}}).get(timeout=60) == "FLOWS"
    time.sleep(2.5)
    assert endpoint.calls() == 1
    resume.delay("qa.control").get(timeout=20)
    job.get(timeout=60)


def test_a_worker_whose_queues_are_all_paused_goes_on_sweeping(predict, worker, redis_server):
    from tests.support.user_tasks import pause

    worker(env=IMPORTS)
    pause.delay("qa.control").get(timeout=20)
    pause.delay("dspyq").get(timeout=20)
    predict.apply_async(kwargs={"question": "due soon"}, countdown=0.5)
    eventually(lambda: redis_server.client().zcard("dspy:v1:queue:qa.control") == 1, timeout_seconds=60)


def test_what_is_more_urgent_goes_first_within_a_queue(predict, worker, endpoint):
    batch = predict.many([{"question": f"batch {number}"} for number in range(20)], priority=9)
    urgent = predict.delay(question="urgent")
    worker(env={"DSPYQ_WORKERS__CONCURRENCY": "1"})
    urgent.get(timeout=20)
    assert endpoint.requests()[0].inputs == {"question": "urgent"}
    assert all(job.get(timeout=30).answer for job in batch)


def test_a_more_urgent_caller_that_joins_a_waiting_job_improves_its_turn(predict, worker, endpoint):
    batch = predict.many([{"question": f"batch {number}"} for number in range(20)], priority=9)
    joined = predict.delay(question="batch 15")
    assert joined.id == batch[15].id
    worker(env={"DSPYQ_WORKERS__CONCURRENCY": "1"})
    joined.get(timeout=20)
    assert endpoint.requests()[0].inputs == {"question": "batch 15"}
    assert all(job.get(timeout=30).answer for job in batch)
    assert endpoint.calls() == 20


def test_inspecting_a_worker_shows_what_it_runs_and_what_it_has_reserved(predict, worker, endpoint):
    threads = {"DSPYQ_WORKERS__CONCURRENCY": "2", "DSPYQ_WORKERS__PREFETCH_MULTIPLIER": "3"}
    worker(env=threads | {"DSPYQ_MODELS__CONTROL__TIMEOUT_SECONDS": "60"})  # longer than looking takes
    endpoint.hold()
    jobs = predict.many([{"question": f"q{number}"} for number in range(9)])
    later = predict.apply_async(kwargs={"question": "later"}, countdown=60)
    inspect = predict.app.control.inspect(timeout=5, limit=1)

    def seen(command):
        replies = getattr(inspect, command)() or {}
        return {request["id"] for requests in replies.values() for request in requests}

    endpoint.wait_for_calls(2)
    eventually(lambda: (len(seen("active")), len(seen("reserved"))) == (2, 4))
    assert seen("active") | seen("reserved") < {job.id for job in jobs}
    assert seen("scheduled") == set()  # a countdown passes in Redis, not in a worker
    endpoint.release()
    assert all(job.get(timeout=20).answer for job in jobs)
    eventually(lambda: not seen("reserved"))
    assert later.cancel()


def test_no_queue_starves_another_in_one_worker(worker, settings_file, run_producer, endpoint, configured):
    del configured
    path = settings_file({"workers": {"concurrency": 1}}, challenger=0.5)

    def ask(number):
        from dspyq import predict

        for variant in ("challenger", "control"):
            predict.many([{"question": f"q{each}"} for each in range(number)], variant=variant)

    run_producer(ask, path, number=60)
    worker(path)
    endpoint.wait_for_answers(60, timeout_seconds=30)
    models = [request.model for request in endpoint.requests()[:60]]
    assert 20 <= models.count("control") <= 40


def test_a_strangers_text_on_a_queues_list_ends_nothing(predict, worker, redis_server):
    running = worker()
    for text in ("not json", "{}", '{"headers": {}}', "[1, 2]", '"text"', "2"):
        redis_server.client().lpush("qa.control", text)
    assert predict.delay(question="q").get(timeout=20).answer
    assert running.is_running


def _strange_messages():
    bodies = [
        b"",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b"{}",
        b'{"method": 5}',
        b'{"method": "ping", "reply_to": 1}',
    ]
    bodies += [b'{"type": 5}', b'{"type": "worker-heartbeat", "hostname": 5}', b'{"destination": 7, "method": "ping"}']
    yield from (b"", b"\xff", b"rubbish", b"{}", b"[1]", b"1", b"null", b'{"body": 1, "headers": 2, "properties": 3}')
    yield b"[" * 100_000
    for body in bodies:
        for kind in ("application/json", "application/x-python-serialize", "text/rubbish"):
            yield json.dumps(
                {
                    "body": base64.b64encode(body).decode(),
                    "content-encoding": "utf-8",
                    "content-type": kind,
                    "headers": {"hostname": [1], "clock": "x", "ticket": {}, "expires": "x"},
                    "properties": {"body_encoding": "base64", "delivery_info": {"routing_key": 5}, "delivery_tag": "t"},
                }
            ).encode()


def test_strangers_messages_on_a_workers_channels_end_nothing(predict, worker, redis_server):
    running, client = worker(), redis_server.client()
    channels = ("/0.celery.pidbox", "/0.celeryev/worker.heartbeat", "/0.celeryev/task.rubbish", "/0.rubbish")
    heard = sum(client.publish(channel, message) for channel in channels for message in _strange_messages())
    assert heard
    assert predict.delay(question="q").get(timeout=20).answer
    assert predict.app.control.ping(timeout=5, limit=1)
    assert running.is_running
    assert "Connection to broker lost" not in running.logs()


def test_a_live_worker_that_consumes_nothing_restarts_its_consumer_and_logs_it(predict, worker):
    from tests.support.user_tasks import break_consumer

    deaf = worker(env=IMPORTS)
    break_consumer.delay().get(timeout=20)
    predict.delay(question="what it had asked for already").get(timeout=30)
    assert predict.delay(question="q").get(timeout=30).answer
    deaf.wait_for_line('"consumer_restarted"')


@pytest.mark.long
def test_one_two_and_four_workers_give_the_same_answers(predict, worker, endpoint):
    answers = []
    for number in (1, 2, 4):
        fleet = [worker(waits=False) for _ in range(number)]
        for each in fleet:
            each.ready()
        jobs = predict.many([{"question": f"q{each}"} for each in range(100)], refresh=True)
        answers.append([job.get(timeout=60).answer for job in jobs])
        for each in fleet:
            each.kill()
    assert answers[0] == answers[1] == answers[2]
    assert endpoint.calls() == 300
