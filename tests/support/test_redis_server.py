from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.redis_server import RedisServer


def test_commands_and_round_trips_are_those_of_the_block(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.ping()

    with redis_server.counted() as nothing:
        pass
    with redis_server.counted() as usage:
        client.set("a", 1)
        client.eval("redis.call('GET', 'a') return redis.call('GET', 'b')", 0)
        with client.pipeline(transaction=False) as pipeline:
            pipeline.get("a").get("b").execute()

    assert (nothing.commands, nothing.round_trips) == ({}, 0)
    assert (usage.commands, usage.round_trips) == ({"set": 1, "eval": 1, "get": 4}, 3)


def test_a_connection_that_ends_is_no_round_trip(redis_server: RedisServer) -> None:
    left = [redis_server.client() for _ in range(5)]
    for client in left:
        client.ping()
    with redis_server.counted() as usage:
        for client in left:
            client.close()
    assert usage.round_trips == 0


def test_monitored_commands_are_those_of_the_block_in_their_order(redis_server: RedisServer) -> None:
    client = redis_server.client()
    client.set("before", 1)

    with redis_server.monitored() as commands:
        client.set("a", 'with "quotes"')
        client.eval("return redis.call('GET', 'a')", 0)
    client.set("after", 1)

    assert [(command.name, command.is_in_script) for command in commands] == [
        ("SET", False),
        ("EVAL", False),
        ("GET", True),
    ]
    assert commands[0].text == 'SET a with "quotes"'
    assert commands[0].client == commands[1].client


def test_each_test_gets_an_empty_server(redis_server: RedisServer) -> None:
    assert redis_server.keys() == []
    redis_server.client().set("left", "over")
    redis_server.flush()
    assert redis_server.keys() == []


def test_a_restart_keeps_the_port_and_what_was_appended(
    fresh_redis_server: Callable[..., RedisServer], tmp_path: Path
) -> None:
    server = fresh_redis_server(append_only_directory=tmp_path)
    server.client().set("kept", "yes")

    server.restart(force=True)

    assert server.client().get("kept") == "yes"


def test_a_password_is_asked_for(fresh_redis_server: Callable[..., RedisServer]) -> None:
    server = fresh_redis_server(password="open sesame")

    assert server.cli("PING")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)).ping()


def test_a_full_server_refuses_writes(fresh_redis_server: Callable[..., RedisServer]) -> None:
    server = fresh_redis_server()
    server.fill()
    with pytest.raises(redis.OutOfMemoryError):
        server.client().set("more", "x" * 1000)

    server.make_room()
    assert server.client().set("more", "x")


def test_clients_lose_their_connections(redis_server: RedisServer) -> None:
    client = redis_server.client()
    before = client.client_id()

    redis_server.cut_connections()

    assert client.client_id() != before
