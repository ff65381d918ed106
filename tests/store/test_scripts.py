"""Lua scripts: several in one round trip, on connections that outlive a restart of Redis and no fork shares."""

import os
import threading
import time

import pytest
import redis

from dspyq.store import wire
from dspyq.store.clients import connect
from dspyq.store.script_text import Argument, Arguments
from dspyq.store.scripts import Script, command_step, run_together
from tests.support.processes import eventually

ADD = "return redis.call('INCRBY', KEYS[1], ARGV[1])"
AMOUNT = Arguments((Argument("amount"),))


@pytest.fixture
def client(redis_server):
    client = connect(redis_server.url)
    yield client
    client.close()


def add(client):
    return Script(client, ADD, AMOUNT)


def test_steps_share_a_round_trip_and_each_reads_its_own_reply(client, redis_server):
    script = add(client)
    script(["n"], amount=0)
    with redis_server.counted() as usage:
        replies = run_together(client, [script.step(str, ["n"], amount=1), script.step(int, ["n"], amount=2)])
    assert replies == ["1", 3]
    assert usage.round_trips == 1


def test_redis_runs_the_first_steps_while_the_next_are_made(client, redis_server):
    other = redis_server.client()

    def steps():
        yield command_step(bool, "SET", "first", "x" * 100_000)
        eventually(lambda: other.exists("first"), timeout_seconds=60)
        yield command_step(bytes, "GET", "first")

    assert run_together(client, steps()) == [True, b"x" * 100_000]


def test_steps_that_are_made_one_by_one_all_run_where_the_connection_was_lost(client, redis_server):
    client.ping()
    redis_server.client().client_kill_filter(_type="normal", skipme=True)
    script = add(client)
    assert run_together(client, (script.step(int, [name], amount=1) for name in "abc")) == [1, 1, 1]


def test_a_script_that_redis_has_forgotten_is_loaded_again_alone(client):
    known, forgotten = add(client), Script(client, ADD + " -- another", AMOUNT)
    known(["n"], amount=1)
    assert run_together(client, [known.step(int, ["n"], amount=1), forgotten.step(int, ["n"], amount=1)]) == [2, 3]


def test_scripts_that_redis_has_forgotten_run_together_once_all_of_them_are_loaded(client, redis_server):
    first, second = Script(client, ADD + " -- first", AMOUNT), Script(client, ADD + " -- second", AMOUNT)
    client.ping()
    with redis_server.counted() as usage:
        assert run_together(client, [first.step(int, ["n"], amount=1), second.step(int, ["n"], amount=2)]) == [1, 3]
    assert usage.round_trips == 3  # asked, loaded, asked again


def test_a_script_that_states_that_it_writes_nothing_needs_the_right_to_read_its_keys_alone(client, redis_server):
    client.set("n", 1)
    rights = (
        "on",
        ">reader",
        "%R~n",
        "+evalsha",
        "+evalsha_ro",
        "+script|load",
        "+get",
        "+incrby",
        "+client",
        "+hello",
    )
    client.execute_command("ACL", "SETUSER", "reader", "reset", *rights)
    try:
        with redis.Redis(port=redis_server.port, username="reader", password="reader") as reader:
            assert Script(reader, "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])")(["n"]) == b"1"
            with pytest.raises(redis.exceptions.NoPermissionError):
                Script(reader, "return redis.call('GET', KEYS[1])")(["n"])
            with pytest.raises(redis.ResponseError, match="No permissions to access a key"):
                Script(reader, "#!lua flags=no-writes\nreturn redis.call('INCRBY', KEYS[1], 1)")(["n"])
    finally:
        client.execute_command("ACL", "DELUSER", "reader")


def test_an_error_of_one_script_is_raised_and_the_others_ran(client):
    script = add(client)
    with pytest.raises(redis.ResponseError):
        run_together(client, [script.step(int, ["n"], amount="no number"), script.step(int, ["n"], amount=5)])
    assert script(["n"], amount=0) == 5


def test_a_packed_script_runs_with_what_is_put_in_its_places_also_one_that_redis_has_forgotten(client):
    script = add(client)
    template = script.template(["\0\0"], amount="\0")
    client.script_flush()
    assert script.run_packed(template % (b"n1", b"4")) == 4
    assert script.run_packed(template % (b"n1", b"5")) == 9
    with pytest.raises(redis.ResponseError, match="integer"):
        script.run_packed(template % (b"n1", b"x"))


def test_a_packed_script_goes_on_after_every_connection_died(client, redis_server):
    script = add(client)
    template = script.template(["\0"], amount="1")
    in_parallel(8, lambda: script.run_packed(template % b"n"))
    redis_server.cut_connections()
    in_parallel(8, lambda: script.run_packed(template % b"n"))
    assert script(["n"], amount=0) == 16


def test_a_percent_sign_in_a_template_is_no_place(client):
    script = add(client)
    assert script.run_packed(script.template(["100%b\0"], amount=1) % b"n") == 1
    assert client.get("100%bn") == b"1"


def test_a_reply_larger_than_what_is_read_at_once_arrives_whole(client):
    script = Script(client, "return { string.rep('x', 100000), 1 }")
    assert script() == [b"x" * 100_000, 1]


def test_a_connection_that_was_idle_for_long_is_checked_before_it_is_used(redis_server):
    client = redis.Redis.from_url(redis_server.url, health_check_interval=0.001)
    script = add(client)
    script(["n"], amount=1)
    redis_server.cut_connections()
    time.sleep(0.01)
    assert script(["n"], amount=1) == 2
    client.close()


def test_a_client_that_another_thread_closes_connects_again(client):
    script = add(client)
    script(["n"], amount=1)
    client.close()
    assert script(["n"], amount=1) == 2


def test_scripts_go_on_after_every_connection_died(client, redis_server):
    script = add(client)
    in_parallel(8, lambda: script(["n"], amount=1))
    redis_server.cut_connections()
    in_parallel(8, lambda: script(["n"], amount=1))
    assert script(["n"], amount=0) == 16


def test_a_redis_that_does_not_answer_is_waited_for_once_and_asked_again_later(redis_server):
    client = connect(redis_server.url, timeout_seconds=2)
    script = add(client)
    script(["n"], amount=1)
    redis_server.process.stop()
    started = time.monotonic()
    try:
        with pytest.raises(redis.TimeoutError):
            script(["n"], amount=1)
    finally:
        redis_server.process.cont()
    assert 2 <= time.monotonic() - started < 4  # once, not twice
    assert script(["m"], amount=5) == 5
    assert script(["n"], amount=0) == 2  # sent once: it was carried out when nobody waited for it any more
    client.close()


def test_connections_of_a_peak_are_closed_one_by_one_once_idle(redis_server, monkeypatch):
    def connections():
        return len([each for each in watcher.client_list() if each["name"] == "peak"])

    monkeypatch.setattr(wire, "_MOST_IDLE", 2)
    client = redis.Redis.from_url(redis_server.url, client_name="peak")
    script, watcher = add(client), redis_server.client()
    together = threading.Barrier(6)
    slow = command_step(lambda _: None, "BLPOP", "nothing", 0.5)  # so that each thread has a connection of its own
    in_parallel(6, lambda: (together.wait(), run_together(client, [slow])))
    script(["n"], amount=1)
    assert connections() == 6  # a moment ago they were needed
    monkeypatch.setattr(wire, "_IDLE_SECONDS", -1.0)
    for _ in range(10):
        script(["n"], amount=1)
    assert connections() == 2
    in_parallel(6, lambda: script(["n"], amount=1))  # those that were closed serve again
    assert script(["n"], amount=0) == 17


def test_a_forked_child_has_connections_of_its_own(client, redis_server):
    script = add(client)
    script(["n"], amount=1)
    before = len(redis_server.client().client_list())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        script(["n"], amount=1)
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
