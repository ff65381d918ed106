"""A deadline bounds everything a socket does, however often it does it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dspyq.programs.deadline import DeadlineSocket, deadline, remaining_seconds


class LikeTls(socket.socket):
    """A socket whose timeouts Python keeps, as those of TLS."""


@pytest.fixture(params=[socket.socket, LikeTls], ids=["kept by the kernel", "kept by Python"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[DeadlineSocket, socket.socket]]:
    connected, theirs = socket.socketpair()
    with request.param(fileno=connected.detach()) as ours, theirs:
        bounded = DeadlineSocket(ours)
        bounded.settimeout(60)
        yield bounded, theirs


def test_bytes_that_trickle_do_not_prolong_it(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    is_over = threading.Event()

    def trickle() -> None:
        while not is_over.wait(0.02):
            theirs.sendall(b".")

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadline(0.2):
        list(iter(lambda: ours.recv(10), b""))
    is_over.set()
    thread.join()
    assert 0.2 <= time.monotonic() - started < 30


def test_a_peer_that_does_not_read_ends_a_write(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadline(0.2):
        ours.sendall(bytes(10_000_000))
    assert 0.2 <= time.monotonic() - started < 30


def test_a_peer_that_reads_slowly_does_not_prolong_a_write(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    is_over = threading.Event()

    def read_slowly() -> None:
        theirs.settimeout(0.1)
        while not is_over.wait(0.02):
            with suppress(TimeoutError):
                theirs.recv(100_000)

    thread = threading.Thread(target=read_slowly)
    thread.start()
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadline(0.3):
        ours.sendall(bytes(50_000_000))
    took_seconds = time.monotonic() - started
    is_over.set()
    thread.join()
    assert 0.3 <= took_seconds < 30


def test_nothing_is_read_or_written_once_it_has_passed(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"there")
    with deadline(-1):
        with pytest.raises(TimeoutError):
            ours.recv(10)
        with pytest.raises(TimeoutError):
            ours.sendall(b"x")
    assert ours.recv(10) == b"there"


def test_without_one_the_sockets_own_timeout_holds(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    assert remaining_seconds() == float("inf")
    ours.settimeout(0.1)
    with pytest.raises(TimeoutError):
        ours.recv(10)


def test_the_head_of_a_request_is_sent_with_its_body(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n")
    theirs.settimeout(0.05)
    with pytest.raises(TimeoutError):
        theirs.recv(100)
    ours.sendall(b"{}")
    assert theirs.recv(100) == b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"


def test_a_head_without_a_body_is_sent_before_its_reply_is_read(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"GET / HTTP/1.1\r\n\r\n")
    theirs.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert ours.recv(100) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert theirs.recv(100) == b"GET / HTTP/1.1\r\n\r\n"


def test_a_body_that_ends_like_a_head_is_sent_at_once(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, theirs = pair
    ours.sendall(b"POST / HTTP/1.1\r\n\r\n")
    ours.sendall(b"\r\n\r\n")
    assert theirs.recv(100) == b"POST / HTTP/1.1\r\n\r\n\r\n\r\n"


def test_each_deadline_bounds_a_connection_that_is_used_again(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    for seconds in (0.3, 0.1, 0.2):
        started = time.monotonic()
        with pytest.raises(TimeoutError), deadline(seconds):
            ours.recv(10)
        assert seconds - 0.02 <= time.monotonic() - started < 30
