"""An HTTP server that takes what a worker pushes, logs or spans, and that fails and hangs on request."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Push(NamedTuple):
    """A request.

    Attributes:
        path: Its path.
        headers: Its headers.
        body: Its body, uncompressed.
        status: What it was answered with.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    status: int


class Collector:
    """The server, in threads of this process.

    Attributes:
        url: Where it listens.
        pushes: What came, in the order it came.
        status: What it answers with.
        going: Cleared, it answers nothing until it is set.
    """

    def __init__(self) -> None:
        self.pushes: list[Push] = []
        self.status = 204
        self.going = threading.Event()
        self.going.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status = collector.status
                collector.pushes.append(Push(self.path, dict(self.headers), body, status))
                collector.going.wait(60)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.going.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def entries(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """Return the log entries that it took, each with its stream's labels."""
        taken = [orjson.loads(push.body) for push in self.pushes if push.status < 400]
        return [
            (stream["stream"], orjson.loads(line))
            for body in taken
            for stream in body["streams"]
            for _, line in stream["values"]
        ]

    def spans(self) -> list[Any]:
        """Return the spans that it took."""
        requests = [ExportTraceServiceRequest.FromString(push.body) for push in self.pushes if push.status < 400]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
