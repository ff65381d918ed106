"""Producers and workers on a Redis with users: streams, and passwords that change while jobs run."""

import pytest

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
