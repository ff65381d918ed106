"""A small HTTP server for a process's metrics and health. Slow or many clients cannot hang it.

Each request has its own connection and thread, and the number of both is small. A client that is not done within
seconds is cut off, and the oldest is cut off at once if a newer one needs its place.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from socketserver import StreamRequestHandler, TCPServer, ThreadingMixIn
from typing import Any, NamedTuple

from dspyq.errors import ConfigurationError

_MOST_CONNECTIONS = 32
#: Threads of clients that were cut off end soon, but not at once.
_MOST_THREADS = 64
#: Time for a client to send its request and read the reply.
_CONNECTION_SECONDS = 10.0
_LOOK_SECONDS = 0.5
#: Of a request; a browser's cookies for the same host may be long.
_MOST_HEADERS, _LONGEST_LINE_BYTES = 100, 65_536


class Response(NamedTuple):
    """Response of a path.

    Attributes:
        body: The content.
        content_type: Its media type.
        status: The HTTP status.
    """

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = HTTPStatus.OK


#: Answers a GET or HEAD; takes the request's ``Accept`` header.
Route = Callable[[str], Response]


class WebServer(ThreadingMixIn, TCPServer):
    """HTTP server of a few paths.

    Attributes:
        port: The port it listens on.
        url: Its root URL, for clients on this machine.
        turned_away: Number of connections closed without a response because all threads were busy.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: str, port: int, routes: Mapping[str, Route]) -> None:
        """Listen.

        Args:
            address: The address to listen at.
            port: The port; 0 picks a free one.
            routes: What is served, by path.

        Raises:
            OSError: If the address and port are not available.
        """
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.routes = routes
        self.turned_away = 0
        self._opened_at: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((address, port), _Handler)
        self.port: int = self.server_address[1]
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self.port}"

    def start(self) -> None:
        """Serve, in threads of its own, for as long as the process lives or until ``shutdown``."""
        arguments = {"poll_interval": _LOOK_SECONDS}
        threading.Thread(target=self.serve_forever, kwargs=arguments, name="dspyq-web", daemon=True).start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread, if one is left."""
        with self._lock:
            is_room = len(self._opened_at) < _MOST_THREADS
            if is_room:
                self._opened_at[request] = time.monotonic()
            else:
                self.turned_away += 1
        if not is_room:
            self.shutdown_request(request)
            return
        self.service_actions()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._opened_at.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Shut down connections that are too old or too many, the oldest first, which ends their threads."""
        too_early = time.monotonic() - _CONNECTION_SECONDS
        with self._lock:
            requests = list(self._opened_at)  # in the order they came
            late = [request for request in requests if self._opened_at[request] < too_early]
        for request in dict.fromkeys((*late, *requests[:-_MOST_CONNECTIONS])):
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended meanwhile

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect; errors of a route get a response."""


class _Handler(StreamRequestHandler):
    """Answers one request: its first line and its ``Accept`` header; http.server reads more, and takes 8 MB."""

    server: WebServer
    timeout = _CONNECTION_SECONDS

    def handle(self) -> None:
        """Read the request, and answer it."""
        method, _, rest = self._line().partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        accept = ""
        for _ in range(_MOST_HEADERS):
            name, _, value = self._line().partition(":")
            if not name:
                break
            if name.lower() == "accept":
                accept = value.strip()
        else:
            raise ValueError("too many headers")
        if method not in {"GET", "HEAD"}:
            answer = Response(b"only GET and HEAD\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
        elif (route := self.server.routes.get(path)) is None:
            answer = Response(b"not found\n", status=HTTPStatus.NOT_FOUND)
        else:
            answer = _answer(route, accept)
        status = HTTPStatus(answer.status)
        head = (
            f"HTTP/1.0 {status.value} {status.phrase}\r\n"
            f"Content-Type: {answer.content_type}\r\n"
            f"Content-Length: {len(answer.body)}\r\n"
            "Cache-Control: no-store\r\n\r\n"
        )
        self.wfile.write(head.encode() + (b"" if method == "HEAD" else answer.body))

    def _line(self) -> str:
        """Return the next line of the request.

        Raises:
            ValueError: If it is longer than any that a client of these paths sends.
        """
        line = self.rfile.readline(_LONGEST_LINE_BYTES)
        if line and not line.endswith(b"\n"):
            raise ValueError("a line is too long, or cut off")
        return line.decode("latin-1").strip()


def _answer(route: Route, accept: str) -> Response:
    try:
        return route(accept)
    except Exception as error:  # noqa: BLE001 - a fault of ours is answered, and named by its type alone
        return Response(f"{type(error).__name__}\n".encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)


def listen(address: str, port: int, routes: Mapping[str, Route], *, setting: str) -> WebServer:
    """Start a server.

    Args:
        address: The address to listen at.
        port: The port; 0 picks a free one.
        routes: What is served, by path.
        setting: The setting named in an error, as in ``metrics.port``.

    Raises:
        ConfigurationError: If the address and port are not available.
    """
    try:
        server = WebServer(address, port, routes)
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: cannot listen at {address}:{port}: {error.strerror or error}; processes on one host need "
            "different ports, and 0 picks a free one"
        ) from error
    server.start()
    return server
