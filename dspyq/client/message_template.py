"""Messages of predictions made from one message of Celery's, a template of the others.

Celery and kombu take ten times as long to make a message as Redis takes to store it, and a batch's messages differ
only in a few fields.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson
from celery.utils import uuid

from dspyq.celery_app.application import process_app
from dspyq.core.names import HEADER
from dspyq.core.plain_json import shield
from dspyq.delivery.message_body import decode_body, encode_prediction, version_of_owner
from dspyq.delivery.records import QueuedJob
from dspyq.prediction.request import Request
from dspyq.tracing.propagation import TRACE_HEADERS, trace_headers

#: Fields of a prediction's header that are its own, and all parts of a message that are.
_OWN_FIELDS = ("input_hash", "request_id", "refresh", "batch", "tenant")
_OWN_PARTS = (*_OWN_FIELDS, "id", "body", "reply_to", "trace")


class Outgoing(NamedTuple):
    """A prediction to send.

    Attributes:
        request: The request.
        task_id: Its task.
        batch: The batch that claimed its question, and pays; empty for none.
        is_claimed: Whether that task has claimed the question.
    """

    request: Request
    task_id: str
    batch: str = ""
    is_claimed: bool = True


class MessageTemplate:
    """Makes messages equal to Celery's own, except for the fields of each prediction.

    Args:
        sample: A job that Celery made, of a prediction of the same variant; of some tenant's, if the others are.

    Raises:
        ValueError: If its message cannot be read.
        LookupError: If it is in another form.
    """

    def __init__(self, sample: QueuedJob) -> None:
        self._sample = sample
        self._message: dict[str, Any] = orjson.loads(sample.message)
        headers = self._message["headers"]
        for name in TRACE_HEADERS:  # each message has those of its own call
            headers.pop(name, None)
        args, _, embed = _read_body(self._message)
        self._body_start = b"[" + orjson.dumps(args) + b","
        self._body_end = b"," + orjson.dumps(embed) + b"]"
        header = headers[HEADER]
        self._version = version_of_owner(headers["task"], header["program"], header["variant"], header["fingerprint"])
        self._order, self._fixed = _split(self._message)

    def make(self, outgoing: Outgoing) -> QueuedJob:
        """Return the job of a prediction."""
        (message,) = self.write([outgoing])
        request = outgoing.request
        return self._sample._replace(
            id=outgoing.task_id, message=message, input_hash=request.input_hash, tenant=request.tenant
        )

    def write(self, outgoing: Iterable[Outgoing]) -> Iterator[bytes]:
        """Yield the messages of predictions."""
        trace = trace_headers()
        parts = {
            **self._fixed,
            "trace": b"," + orjson.dumps(trace)[1:-1] if trace else b"",
            "reply_to": orjson.dumps(process_app().thread_oid),
        }
        for request, task_id, batch, _ in outgoing:
            body = self._body_start + shield(request.canonical_inputs) + self._body_end
            stored = encode_prediction(request, task_id, self._version, body)
            parts["body"] = b'"' + binascii.b2a_base64(stored, newline=False) + b'"'
            parts["id"] = orjson.dumps(task_id)
            parts["input_hash"] = orjson.dumps(request.input_hash)
            parts["request_id"] = orjson.dumps(request.request_id)
            parts["refresh"] = b"true" if request.refresh else b"false"
            parts["batch"] = orjson.dumps(batch)
            if request.tenant:
                parts["tenant"] = orjson.dumps(request.tenant)
            yield b"".join(map(parts.__getitem__, self._order))

    def makes(self, outgoing: Outgoing) -> bool:
        """Return True if the template reproduces Celery's sample message exactly."""
        made: dict[str, Any] = orjson.loads(self.make(outgoing).message)
        bodies = [_read_body(message) for message in (made, self._message)]
        theirs = {**self._message, "body": made["body"]}
        theirs["headers"] = {**theirs["headers"], **trace_headers()}
        theirs["properties"] = {**theirs["properties"], "delivery_tag": outgoing.task_id}  # random; a run has its own
        return bodies[0] == bodies[1] and made == theirs


def _split(message: dict[str, Any]) -> tuple[list[str], dict[str, bytes]]:
    """Return the order of a message's parts, as JSON, and those that all predictions of a variant have in common."""
    marks = {name: f"{name} {uuid()}" for name in _OWN_PARTS}
    stated = message["headers"][HEADER]  # without the tenant where it is none's
    header = stated | {name: marks[name] for name in _OWN_FIELDS if name in stated}
    ids = {"id": marks["id"], "root_id": marks["id"], HEADER: header}
    properties = {"correlation_id": marks["id"], "delivery_tag": marks["id"], "reply_to": marks["reply_to"]}
    text = orjson.dumps(
        {
            **message,
            "body": marks["body"],
            "headers": message["headers"] | ids | {marks["trace"]: 0},
            "properties": message["properties"] | properties,
        }
    ).decode()
    names = {f'"{mark}"': name for name, mark in marks.items()} | {f',"{marks["trace"]}":0': "trace"}
    pieces = re.split(f"({'|'.join(map(re.escape, names))})", text)
    order = [names.get(piece, str(index)) for index, piece in enumerate(pieces)]
    return order, {name: piece.encode() for name, piece in zip(order, pieces, strict=True) if name not in _OWN_PARTS}


def _read_body(message: dict[str, Any]) -> list[Any]:
    if message["properties"]["body_encoding"] != "base64":
        raise ValueError("the body is in another encoding")
    body: list[Any] = orjson.loads(decode_body(message["headers"], binascii.a2b_base64(message["body"])))
    return body
