"""Private parts of redis-py that dspyq.store, dspyq.celery_app and dspyq.worker use."""

from __future__ import annotations

import socket
from typing import Any

import hiredis
import pytest
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA

from tests.support.contracts import parameters


@pytest.fixture
def connection(redis_server: Any) -> Any:
    """A connection out of a client's pool."""
    client = redis.Redis(port=redis_server.port)
    lent = client.connection_pool.get_connection()
    yield lent
    client.connection_pool.release(lent)
    client.close()


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (redis.Connection, "send_packed_command", "self command check_health"),
        (redis.ConnectionPool, "release", "self connection"),
    ],
)
def test_what_is_called_has_its_parameters(owner: type, name: str, expected: str) -> None:
    assert parameters(owner, name) == expected


def test_packed_commands_are_sent_and_their_replies_read_one_by_one(connection: Any) -> None:
    commands = [("SET", "k", b"v"), ("GET", "k"), ("NO", "SUCH")]
    connection.send_packed_command([b"".join(map(hiredis.pack_command, commands))])
    assert [connection.read_response() for _ in commands[:2]] == [b"OK", b"v"]
    with pytest.raises(redis.ResponseError):
        connection.read_response()


def test_packed_commands_are_sent_by_the_socket_and_their_replies_read_by_the_reader(connection: Any) -> None:
    sock, parser = connection._sock, connection._parser
    sock.sendall(hiredis.pack_command(("ECHO", "v")) + hiredis.pack_command(("NO", "SUCH")))
    assert parser._reader.gets() is NOT_ENOUGH_DATA
    replies: list[Any] = []
    while len(replies) < 2:
        parser._reader.feed(parser._buffer, 0, sock.recv_into(parser._buffer))
        while (reply := parser._reader.gets()) is not NOT_ENOUGH_DATA:
            replies.append(reply)
    assert replies[0] == b"v"
    assert isinstance(replies[1], redis.ResponseError)
    connection.disconnect()
    assert parser._reader is None


def test_a_notification_that_nothing_listens_to_is_passed_over(connection: Any) -> None:
    assert issubclass(hiredis.PushNotification, list)
    connection._parser.handle_push_response([b"message", b"channel", b"text"])


def test_a_connection_is_checked_where_no_reply_was_read_for_its_interval(redis_server: Any) -> None:
    client = redis.Redis(port=redis_server.port, health_check_interval=25)
    lent = client.connection_pool.get_connection()
    assert lent.health_check_interval == 25
    lent.next_health_check = 0
    lent.send_packed_command([hiredis.pack_command(("ECHO", "v"))])
    assert lent.next_health_check > 0  # it has read the reply to a PING
    assert lent.read_response() == b"v"
    client.connection_pool.release(lent)
    client.close()


def test_a_connection_holds_its_socket(connection: Any) -> None:
    assert type(connection._sock) is socket.socket
    assert connection.socket_timeout is None or connection.socket_timeout > 0
    connection.disconnect()
    assert connection._sock is None


def test_a_pipeline_loads_the_scripts_it_holds(redis_server: Any) -> None:
    client = redis.Redis(port=redis_server.port)
    script = client.register_script("return 'from a script'")
    pipeline = client.pipeline()
    pipeline.scripts.add(script)
    pipeline.evalsha(script.sha, 0)
    assert pipeline.execute() == [b"from a script"]
    client.close()
