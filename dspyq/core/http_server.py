"""A small HTTP server for what machines ask of a process: metrics and health. Slow or many clients cannot hang it.

Each request has a connection and a thread of its own, and there are few of both. A client that does not get done within
seconds is cut off, and the oldest at once where a newer one needs its place.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple

from dspyq.errors import ConfigurationError

_MOST_CONNECTIONS = 32
#: Those of clients that were cut off end soon, but not at once.
_MOST_THREADS = 64
#: Within this a client has sent its request and read the reply.
_CONNECTION_SECONDS = 10.0
_LOOK_SECONDS = 0.5


class Reply(NamedTuple):
    """What a path answers.

    Attributes:
        body: The content.
        content_type: Its media type.
        status: The HTTP status.
    """

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = HTTPStatus.OK


#: Answers a GET or HEAD; takes the request's ``Accept`` header.
Route = Callable[[str], Reply]


class WebServer(ThreadingMixIn, TCPServer):
    """Serves some paths.

    Attributes:
        port: Where it listens.
        url: Its root, as others on this machine see it.
        turned_away: How many connections were closed unheard, because all threads were busy.
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
            OSError: If that cannot be listened at.
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
        """Cut off who does not get done, and the oldest beyond the most; their threads then read and write no more."""
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
        """Say nothing of clients that go away; a route's own errors are answered."""


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    server_version = "dspyq"
    sys_version = ""
    timeout = _CONNECTION_SECONDS

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            reply = Reply(b"not found\n", status=HTTPStatus.NOT_FOUND)
        else:
            reply = _answer(route, self.headers.get("Accept", ""))
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: probes come every few seconds."""


def _answer(route: Route, accept: str) -> Reply:
    try:
        return route(accept)
    except Exception as error:  # noqa: BLE001 - a fault of ours is answered, and named by its type alone
        return Reply(f"{type(error).__name__}\n".encode(), status=HTTPStatus.INTERNAL_SERVER_ERROR)


def listen(address: str, port: int, routes: Mapping[str, Route], *, setting: str) -> WebServer:
    """Start a server.

    Args:
        address: The address to listen at.
        port: The port; 0 picks a free one.
        routes: What is served, by path.
        setting: What an error names, as in ``metrics.port``.

    Raises:
        ConfigurationError: If that cannot be listened at.
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
