"""Lua scripts: several in one round trip, on connections that outlive a restart of Redis and no fork shares."""

import os
import threading
import time

import pytest
import redis

from dspyq.store.clients import connect
from dspyq.store.scripts import Script, run_together

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"


@pytest.fixture
def client(redis_server):
    client = connect(redis_server.url)
    yield client
    client.close()


def add(client):
    return Script(client, ADD)


def test_steps_share_a_round_trip_and_each_reads_its_own_reply(client, redis_server):
    script = add(client)
    script(["n"], [0])
    with redis_server.counted() as usage:
        replies = run_together(client, [script.step(str, ["n"], [1]), script.step(int, ["n"], [2])])
    assert replies == ["1", 3]
    assert usage.round_trips == 1


def test_a_script_that_redis_has_forgotten_is_loaded_again_alone(client):
    known, forgotten = add(client), Script(client, ADD + " -- another")
    known(["n"], [1])
    assert run_together(client, [known.step(int, ["n"], [1]), forgotten.step(int, ["n"], [1])]) == [2, 3]


def test_scripts_that_redis_has_forgotten_run_together_once_all_of_them_are_loaded(client, redis_server):
    first, second = Script(client, ADD + " -- first"), Script(client, ADD + " -- second")
    client.ping()
    with redis_server.counted() as usage:
        assert run_together(client, [first.step(int, ["n"], [1]), second.step(int, ["n"], [2])]) == [1, 3]
    assert usage.round_trips == 3  # asked, loaded, asked again


def test_an_error_of_one_script_is_raised_and_the_others_ran(client):
    script = add(client)
    with pytest.raises(redis.ResponseError):
        run_together(client, [script.step(int, ["n"], ["no number"]), script.step(int, ["n"], [5])])
    assert script(["n"], [0]) == 5


def test_scripts_go_on_after_every_connection_died(client, redis_server):
    script = add(client)
    in_parallel(8, lambda: script(["n"], [1]))
    redis_server.cut_connections()
    in_parallel(8, lambda: script(["n"], [1]))
    assert script(["n"], [0]) == 16


def test_a_redis_that_does_not_answer_is_waited_for_once_and_asked_again_later(redis_server):
    client = connect(redis_server.url, timeout_seconds=0.3)
    script = add(client)
    script(["n"], [1])
    redis_server.process.stop()
    started = time.monotonic()
    try:
        with pytest.raises(redis.TimeoutError):
            script(["n"], [1])
    finally:
        redis_server.process.cont()
    assert 0.3 <= time.monotonic() - started < 0.6
    assert script(["m"], [5]) == 5
    assert script(["n"], [0]) == 2  # sent once: it was carried out when nobody waited for it any more
    client.close()


def test_a_forked_child_has_connections_of_its_own(client, redis_server):
    script = add(client)
    script(["n"], [1])
    before = len(redis_server.client().client_list())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        script(["n"], [1])
        os.read(reader, 1)  # until it is killed
        os._exit(0)
    try:
        while int(redis_server.client().get("n") or 0) < 2:
            pass
        assert len(redis_server.client().client_list()) == before + 1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def in_parallel(count, work):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
