"""The thread that sends the text of all runs: it outlives what Redis does."""

import threading

import pytest

from dspyq.core.tolerated import tolerated
from dspyq.store.clients import connect
from dspyq.store.keys import stream_key
from dspyq.streaming.flusher import Flusher
from dspyq.streaming.frames import read_entries
from tests.support.processes import eventually

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def flusher_of():
    """Make a flusher on a Redis."""
    flushers = []

    def make(server):
        client = connect(server.url, timeout_seconds=1.0, retries=0)
        flushers.append(Flusher(client, client, is_one_redis=True))
        return flushers[-1]

    yield make
    for flusher in flushers:
        flusher.close()


def texts(client):
    log = client.get(stream_key("task")) or b""
    return [frame.text for frame, _ in read_entries("task", log, 0) if frame.kind == "delta"]


def test_text_is_sent_without_waiting_for_the_end_and_the_rest_with_it(flusher_of, redis_server, client):
    client.hset("dspy:v1:job:task", "fence", "1")
    flusher = flusher_of(redis_server)
    run = flusher.begin("task", "1")
    run.add("delta", "answer", "one")
    eventually(lambda: texts(client) == ["one"])
    run.add("delta", "answer", " two")
    flusher.end(run)
    assert texts(client) == ["one", " two"]


def test_many_runs_share_a_round_trip(flusher_of, redis_server, client):
    for number in range(20):
        client.hset(f"dspy:v1:job:{number}", "fence", "1")
    flusher = flusher_of(redis_server)
    runs = [flusher.begin(str(number), "1") for number in range(20)]
    with redis_server.monitored() as commands:
        for run in runs:
            run.add("delta", "answer", "text")
        eventually(lambda: all(client.strlen(stream_key(str(number))) > 40 for number in range(20)))
    assert len({command.client for command in commands if command.name == "EVALSHA"}) == 1
    for run in runs:
        flusher.end(run)


def test_a_run_whose_job_is_ended_is_lost_though_it_is_silent(flusher_of, redis_server, client):
    client.hset("dspy:v1:job:task", "fence", "1")
    lost = threading.Event()
    run = flusher_of(redis_server).begin("task", "1")
    run.at_loss(lost.set)
    eventually(lambda: client.exists(stream_key("task")))
    client.delete("dspy:v1:job:task")
    assert lost.wait(20)


def test_text_waits_for_a_redis_that_is_away_and_is_there_once(flusher_of, fresh_redis_server):
    server = fresh_redis_server()
    with server.client(decode_responses=False) as client:
        client.hset("dspy:v1:job:task", "fence", "1")
        flusher, before = flusher_of(server), tolerated("stream")
        server.process.stop()
        run = flusher.begin("task", "1")
        run.add("delta", "answer", "one")
        eventually(lambda: tolerated("stream") > before)
        server.process.cont()  # what was sent to it meanwhile, it does now
        run.add("delta", "answer", " two")
        eventually(lambda: "".join(texts(client)) == "one two")
        flusher.end(run)
        assert "".join(texts(client)) == "one two"
