"""Producers, workers and Flower on a Redis with users: streams, pages, and passwords that change while jobs run."""

import json
import sys
import urllib.request
from contextlib import closing

import pytest

from tests.support.configuration import environment
from tests.support.processes import REPOSITORY, LocalProcess, free_port, wait_until
from tests.support.redis_users import PREFIX, env_of, load_users, password_of, refusals, url_of


@pytest.fixture
def server(fresh_redis_server):
    server = fresh_redis_server()
    load_users(server)
    return server


def ask(first, count):
    from dspyq import predict

    handles = [predict.delay(question=f"q{number}") for number in range(first, first + count)]
    return [handle.get(timeout=90).answer for handle in handles]


def test_a_producer_streams_joins_cancels_and_reads_in_every_way_with_its_rights(server, worker, start_producer):
    def stream():
        import asyncio

        from dspyq import predict

        job = predict.apply_async(kwargs={"question": "streamed"}, stream=True)
        chunks = "".join(chunk.text for chunk in job.stream(timeout=40) if chunk.kind == "delta")
        asked = asyncio.run(predict.ask({"question": "awaited"}))
        return [chunks, asked.answer, predict.delay(question="streamed").get(timeout=40).answer]

    worker(env=env_of(server, "worker"))
    told = start_producer(stream, env=env_of(server, "producer")).result(90)
    assert told == ["echo:streamed", "echo:awaited", "echo:streamed"]
    assert refusals(server) == []


def page(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{path}", timeout=30) as reply:
        return reply.read().decode()


@pytest.mark.journey
@pytest.mark.parametrize("is_on", [False, True], ids=["events", "remote control"])
def test_flower_runs_with_the_watchers_rights(is_on, fresh_redis_server, worker, start_producer, session_settings_file):
    server = fresh_redis_server()
    load_users(server, remote_control=is_on)
    stated = {"DSPYQ_WORKERS__REMOTE_CONTROL": str(is_on).lower()}
    running = worker(env=env_of(server, "worker", **stated))
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "dspyq", "flower", f"--port={port}"]
    env = environment(
        session_settings_file, None, env_of(server, "watcher", FLOWER_UNAUTHENTICATED_API="true", **stated)
    )
    with LocalProcess("flower", command, ready_line="Visit me", env=env) as flower:
        flower.ready()

        wait_until(lambda: running.node_name in page(f"{port}/workers?json=1"), 60, "Flower to show the worker")
        assert {"name": "qa.control", "messages": 0} in json.loads(page(f"{port}/api/queues/length"))["active_queues"]
        assert start_producer(ask, env=env_of(server, "producer", **stated), first=0, count=2).result(90)
    assert refusals(server) == []


@pytest.mark.journey
def test_a_stack_on_a_redis_with_users_runs_as_the_operator(server, settings_file, start_producer, tmp_path):
    settings = settings_file()
    (tmp_path / "Procfile").write_text("worker: celery -A dspyq worker\n")
    env = environment(settings, None, env_of(server, "operator", PYTHONPATH=str(REPOSITORY)))
    command = [sys.executable, "-m", "dspyq", "up"]
    with closing(LocalProcess("up", command, ready_line="Ask from", env=env, directory=tmp_path)) as up:
        told = start_producer(ask, settings, env=env_of(server, "producer"), first=0, count=2).result(120)
        assert told == ["echo:q0", "echo:q1"], up.logs()
    assert refusals(server) == []


def test_passwords_of_all_users_change_and_no_question_is_lost_or_paid_twice(server, worker, start_producer, endpoint):
    def env(user, password):
        return env_of(server, user) | {"DSPYQ_REDIS_URL": url_of(server, user, password)}

    def cut():
        for kind in ("normal", "pubsub"):
            server.cli("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    endpoint.hold(containing="q")
    old = worker(env=env_of(server, "worker"))
    asking = start_producer(ask, env=env_of(server, "producer"), first=0, count=10)
    endpoint.wait_for_calls(1)
    for user in ("worker", "producer"):
        server.cli("ACL", "SETUSER", user, f">new{user}")  # both hold until all parts have the new one
    worker(env=env("worker", "newworker"))
    endpoint.release()
    old.terminate()
    assert asking.result(120) == [f"echo:q{number}" for number in range(10)]
    for user in ("worker", "producer"):
        server.cli("ACL", "SETUSER", user, f"<{password_of(user)}")
    cut()
    told = start_producer(ask, env=env("producer", "newproducer"), first=10, count=10).result(120)
    assert told == [f"echo:q{number}" for number in range(10, 20)]
    assert endpoint.calls() == 20
    refused = start_producer(ask, env=env_of(server, "producer"), first=20, count=1)
    with pytest.raises(Exception, match=r"(?i)redis"):
        refused.result(60)
    assert not server.keys(f"{PREFIX}dspy:v1:dead")
