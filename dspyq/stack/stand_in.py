"""A stand-in for a language model: it answers each request with the first value that the request's schema allows."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from dspyq.stack.embedded import loopback

_TEXT = "a stand-in's answer, for there is no model here"
_SIMPLE_VALUES: dict[str, Any] = {"integer": 0, "number": 0.0, "boolean": True, "array": [], "null": None}


def first_value(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Return the first value that a JSON schema allows."""
    if reference := schema.get("$ref"):
        return first_value(definitions[reference.rsplit("/", 1)[-1]], definitions)
    if "const" in schema:
        return schema["const"]
    if choices := schema.get("enum"):
        return choices[0]
    if options := schema.get("anyOf"):
        return first_value(options[0], definitions)
    if schema.get("type") == "object":
        return {name: first_value(part, definitions) for name, part in schema.get("properties", {}).items()}
    return _SIMPLE_VALUES.get(schema.get("type", ""), _TEXT)


class _ModelHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Answer a chat request, whatever its path."""
        request = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        schema = request.get("response_format", {}).get("json_schema", {}).get("schema")
        content = _TEXT if schema is None else json.dumps(first_value(schema, schema.get("$defs", {})))
        message = {"role": "assistant", "content": content}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        completion = {"object": "chat.completion", "model": request.get("model"), "choices": choices, "usage": usage}
        body = json.dumps({"id": "stand-in", "created": 0, **completion}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: requests contain users' content."""


class StandInModel:
    """A running stand-in; a context manager.

    Attributes:
        api_base: Its URL, as a model's ``api_base``.
    """

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((loopback.ADDRESS, 0), _ModelHandler)
        self._server.daemon_threads = True
        self.api_base = f"http://{loopback.ADDRESS}:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, name="stand-in model", daemon=True).start()

    def __enter__(self) -> Self:
        """Return itself, which serves already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
