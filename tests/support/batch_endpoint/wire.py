"""A request to the batch interfaces, and a reply, as the endpoint's connection reads and writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.support.batch_endpoint.forms import Dialect, as_error
from tests.support.batch_endpoint.store import BatchScript


@dataclass(frozen=True)
class BatchRequest:
    """A request.

    Attributes:
        method: The method.
        path: The path.
        query: The query, each name once.
        headers: The headers, by their names in lower case.
        body: The body.
        origin: The endpoint's own ``http://host:port``.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    origin: str


@dataclass(frozen=True)
class BatchReply:
    """A reply.

    Attributes:
        status: The status.
        body: The body.
        headers: Further headers.
        fault: ``disconnect`` closes without a byte; ``cut`` closes after half of the body.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    fault: str = ""


def reply(value: Any, status: int = 200, **headers: str) -> BatchReply:
    """Return a value as JSON."""
    return BatchReply(status, json.dumps(value).encode(), headers)


def refusal(dialect: Dialect, status: int, message: str, code: str = "") -> BatchReply:
    """Return an error in a provider's form."""
    return reply(as_error(dialect, status, code, message), status)


def refusal_of(dialect: Dialect, script: BatchScript) -> BatchReply:
    """Return the error that a script states for a creation."""
    error = refusal(dialect, script.status, f"scripted {script.status}", script.error_code)
    return BatchReply(error.status, error.body, {"retry-after": script.retry_after} if script.retry_after else {})


def stamp(seconds: float | None) -> str | None:
    """Return a time as RFC 3339."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
