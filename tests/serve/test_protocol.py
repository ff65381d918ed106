"""Clients that are slow, too large, or that smuggle: each is cut off in time, and others are served meanwhile."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.processes import eventually
from tests.support.sockets import cut_off_at_any_step, exchange

HEAD = b"POST /v1/programs/qa/predictions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"inputs":{"question":"raw"}}'
ASK = HEAD + b"Prefer: respond-async\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
#: A client that is to be cut off waits so long for that.
_LONGEST_SECONDS = 30.0


@contextmanager
def connected(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=_LONGEST_SECONDS) as connection:
        yield connection


def seconds_until_closed(connection):
    began = time.monotonic()
    connection.settimeout(_LONGEST_SECONDS)
    with cut_off_at_any_step():
        while connection.recv(65_536):
            pass
    return time.monotonic() - began


def send_slowly(connection, sent, end):
    for byte in sent:
        assert time.monotonic() < end
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


@pytest.fixture
def hasty(door, settings_file):
    """A server that waits for nothing longer than half a second."""
    return door(settings_file({"serve": {"header_seconds": 0.5, "body_seconds": 0.5, "keep_alive_seconds": 1.0}}))


class TestSlow:
    @pytest.mark.parametrize("sent", [b"", b"POST /v1/prog", HEAD, HEAD + b"X-Slow: "], ids=str)
    def test_a_head_that_does_not_come_to_its_end_is_cut_off(self, hasty, sent):
        with connected(hasty) as connection:
            connection.sendall(sent)
            assert hasty.api.get("/healthz").status_code == 200
            assert seconds_until_closed(connection) < _LONGEST_SECONDS - 5

    def test_a_head_that_comes_byte_by_byte_is_cut_off(self, hasty):
        with connected(hasty) as connection:
            end = time.monotonic() + _LONGEST_SECONDS
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                send_slowly(connection, HEAD * 100, end)

    def test_a_body_that_does_not_come_is_refused_and_the_connection_closed(self, hasty):
        received = exchange(hasty.port, HEAD + b"Content-Length: 100\r\n\r\n{")
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in received.lower()

    def test_a_connection_without_a_request_is_closed(self, hasty):
        with connected(hasty) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            assert seconds_until_closed(connection) < _LONGEST_SECONDS - 5

    def test_a_second_request_on_a_connection_has_its_deadline_too(self, hasty):
        with connected(hasty) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: ")
            assert seconds_until_closed(connection) < _LONGEST_SECONDS - 5


class TestLarge:
    @pytest.mark.parametrize(
        "headers",
        [b"X-Large: " + b"x" * 65_536 + b"\r\n", b"".join(b"X-%d: 1\r\n" % number for number in range(1_000))],
        ids=["one of 64 KB", "a thousand"],
    )
    def test_a_head_that_is_too_large_is_refused(self, shared_door, headers):
        received = exchange(shared_door.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        assert received.startswith(b"HTTP/1.1 431 ")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["status"] == 431

    def test_a_path_that_is_too_long_is_refused(self, shared_door):
        received = exchange(shared_door.port, b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 431 ")

    def test_a_body_longer_than_allowed_is_refused_before_it_comes(self, shared_door):
        received = exchange(shared_door.port, HEAD + b"Content-Length: 100000000\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 413 ")


class TestSmuggling:
    @pytest.mark.parametrize(
        "sent",
        [
            HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
            HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Content-Length: +5\r\n\r\n{}   ",
            HEAD + b"Content-Length: 5, 5\r\n\r\n{}   ",
            HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            HEAD.replace(b"Host: ", b"Host : ") + b"\r\n",
            HEAD.replace(b"Host:", b"Host\x00:") + b"\r\n",
            b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
        ],
        ids=str,
    )
    def test_what_servers_read_differently_is_refused_and_the_connection_closed(self, shared_door, sent):
        """A second request behind it would be answered, were the connection kept."""
        received = exchange(shared_door.port, sent + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 4")
        assert received.count(b"HTTP/1.1 ") == 1

    def test_two_hosts_are_refused(self, shared_door):
        received = exchange(shared_door.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 400 ")

    def test_the_host_of_an_absolute_form_does_not_count_for_more_than_the_header(self, shared_door):
        """As RFC 9112 has it, a server without virtual hosts may ignore either; a rebound name must not get in."""
        request = b"GET http://localhost/v1/programs HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        received = exchange(shared_door.port, request)
        assert received.startswith(b"HTTP/1.1 401 ")

    def test_pipelined_requests_are_answered_in_their_order(self, shared_door):
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        received = exchange(shared_door.port, ASK + last)
        assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"202", b"200"]


@pytest.mark.parametrize("clients_that_leave", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_nothing_is_left_of_clients_that_leave_at_any_moment(door, settings_file, clients_that_leave):
    """No worker runs, so that those that stay would wait."""
    server = door(settings_file({"serve": {"wait_seconds": 600}}))
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    chance = random.Random(1)  # noqa: S311 - no secret

    def leave(_):
        with connected(server) as connection:
            connection.sendall(request[: chance.randrange(1, len(request) + 40)])
            if chance.random() < 0.5:
                time.sleep(chance.random() / 20)
            if chance.random() < 0.5:  # a reset, not an orderly end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    with ThreadPoolExecutor(16) as clients:
        list(clients.map(leave, range(clients_that_leave)))
    eventually(lambda: server.metric("dspyq_http_waiting") == 0, 30)
    eventually(lambda: server.metric("dspyq_http_connections") == 0, 30)
    assert server.api.get("/healthz").status_code == 200
