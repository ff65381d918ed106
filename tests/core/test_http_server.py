"""The server of metrics and health under clients that are slow or many."""

import http.client
import socket
import threading

import pytest

from dspyq.core import http_server as web
from dspyq.errors import ConfigurationError
from tests.support.processes import eventually
from tests.support.sockets import PATIENCE_SECONDS, exchange


@pytest.fixture
def serve():
    servers = []

    def serve(routes):
        servers.append(web.listen("127.0.0.1", 0, routes, setting="metrics.port"))
        return servers[-1]

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def read(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def test_clients_that_send_nothing_block_no_other_and_are_cut_off(serve):
    server = serve({"/": lambda _: web.Response(b"well")})
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    assert read(server, "/") == (200, b"well")
    assert silent[0].recv(1) == b""  # the oldest had to make room
    eventually(lambda: threading.active_count() < 64)
    for each in silent:
        each.close()


def test_requests_that_are_stuck_take_a_bounded_number_of_threads(serve):
    going, stuck = threading.Event(), []

    def wait(_):
        stuck.append(1)
        going.wait(PATIENCE_SECONDS)
        return web.Response(b"")

    server = serve({"/": wait})
    clients = []
    for number in range(64):
        clients.append(socket.create_connection(("127.0.0.1", server.port)))
        clients[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        eventually(lambda number=number: len(stuck) == number + 1)
    with socket.create_connection(("127.0.0.1", server.port)) as one_more:
        assert one_more.recv(1) == b""
    assert server.turned_away == 1
    going.set()
    for each in clients:
        each.close()


def test_a_fault_of_ours_is_an_answer_that_names_its_type_alone(serve):
    def fail(_):
        raise RuntimeError("quotes a secret")

    server = serve({"/": fail})
    assert read(server, "/") == (500, b"RuntimeError\n")


def test_a_taken_port_is_one_line_with_the_remedy(serve):
    taken = serve({}).port
    with pytest.raises(ConfigurationError, match=f"metrics.port: cannot listen at 127.0.0.1:{taken}: .* 0 picks"):
        web.listen("127.0.0.1", taken, {}, setting="metrics.port")


def test_a_request_is_answered_by_its_path_and_what_it_accepts(serve):
    server = serve({"/page": lambda accept: web.Response(accept.encode(), "text/x")})
    reply = exchange(server.port, b"GET /page?query=1 HTTP/1.1\r\nHost: here\r\naccept:  text/x \r\n\r\n")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert body == b"text/x"
    assert head.splitlines()[:3] == [b"HTTP/1.0 200 OK", b"Content-Type: text/x", b"Content-Length: 6"]
    assert exchange(server.port, b"HEAD /page HTTP/1.1\r\nAccept: text/x\r\n\r\n").endswith(b"\r\n\r\n")
    assert exchange(server.port, b"GET /other HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 404 ")
    assert exchange(server.port, b"POST /page HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.0 405 ")


LONG_LINE = b"GET /" + b"a" * 70_000
MANY_HEADERS = b"GET /page HTTP/1.1\r\n" + b"x: y\r\n" * 101


@pytest.mark.parametrize("request_bytes", [LONG_LINE, MANY_HEADERS, b"GET /pa"], ids=["line", "headers", "part"])
def test_what_is_no_request_is_cut_off(serve, request_bytes):
    server = serve({"/page": lambda _: web.Response(b"well")})
    assert exchange(server.port, request_bytes, half_closes=True) == b""
    assert read(server, "/page") == (200, b"well")
