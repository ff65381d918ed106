"""Parts of the description of the API that its paths share: parameters, schemas, and how both are written."""

from __future__ import annotations

from typing import Any

from dspyq.serve.asking.idempotency import LONGEST_CHARACTERS

JsonObject = dict[str, Any]
#: Statuses of problems that any request may be answered with, and those of requests with a body.
ALWAYS = (401, 403, 404, 429, 500, 503)
WITH_BODY = (400, 408, 413, 415, 422)
#: A prediction may fail with these.
OF_PREDICTIONS = (402, 409, 502, 504)


def content(description: str, schema: str) -> JsonObject:
    """Return a response whose body has a schema of the description."""
    return json_of(description, reference(schema))


def json_of(description: str, schema: JsonObject) -> JsonObject:
    """Return a response whose body is JSON of a schema."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def list_of(schema: str) -> JsonObject:
    """Return the schema of a list of things that have one."""
    return {
        "type": "object",
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": reference(schema)}},
        "required": ["object", "data"],
    }


def problems(*statuses: int) -> JsonObject:
    """Return the responses of these statuses."""
    problem = {"content": {"application/problem+json": {"schema": reference("Problem")}}}
    return {str(status): {"description": "A problem", **problem} for status in sorted(statuses)}


def reference(schema: str) -> JsonObject:
    """Return a reference to a schema of the description."""
    return {"$ref": f"#/components/schemas/{schema}"}


LINKS = {
    "lookAtPrediction": "lookAtPrediction",
    "cancelPrediction": "cancelPrediction",
    "deletePrediction": "deletePrediction",
    "listenToPrediction": "listenToPrediction",
}
PREDICTION_ID = {
    "name": "prediction",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The id of a prediction",
}
WAIT = {
    "name": "wait",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0},
    "description": "How many seconds to wait for the answer",
}
_EVENT: JsonObject = {
    "type": "object",
    "properties": {
        "event": {"enum": ["status", "delta", "reset", "completed", "failed", "cancelled", "reconnect"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "The place of the event in the text of its prediction"},
        "retry": {"type": "integer"},
    },
    "required": ["event", "data"],
}
EVENTS: JsonObject = {
    "description": "The stream: events status, delta, reset, and at the end completed, failed, cancelled or reconnect",
    "content": {"text/event-stream": {"schema": _EVENT}},
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{0,12}$"},
    "description": "The id of the last event that the client has: the stream goes on behind it",
}
AFTER = {
    "name": "after",
    "in": "query",
    "schema": {"type": "string", "pattern": "^[0-9]{0,12}$"},
    "description": "The same, for clients that cannot send the header",
}
FIRST_DAY = {
    "name": "from",
    "in": "query",
    "schema": {"type": "string", "format": "date"},
    "description": "The first day, by `budget.timezone`; 31 days in all where left out",
}
LAST_DAY = {
    "name": "to",
    "in": "query",
    "schema": {"type": "string", "format": "date"},
    "description": "The last day; today where left out",
}
TOKEN = {
    "name": "token",
    "in": "query",
    "schema": {"type": "string"},
    "description": "The token of `urls.events`, in place of a key",
}
PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`wait=10` waits for so many seconds at most, `respond-async` not at all",
    "examples": {"wait": {"value": "wait=10"}, "async": {"value": "respond-async"}},
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_CHARACTERS},
    "description": "The same key with the same body, within a day, is the same prediction",
}
METADATA = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "usage": {"type": "object", "additionalProperties": {"type": "integer"}},
        "cost_usd": {"type": ["number", "null"]},
        "duration_seconds": {"type": "number"},
        "cached": {"type": "boolean"},
        "cache_level": {"enum": ["memory", "redis", "joined", None]},
        "fallback": {"type": ["string", "null"]},
        "finish_reason": {"type": ["string", "null"]},
        "is_truncated": {"type": "boolean"},
        "exposure": {"type": ["string", "null"]},
        "request_id": {"type": "string"},
    },
}
PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after_seconds": {"type": "number"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["pointer", "detail"],
            },
        },
        "prediction": {"type": "string"},
    },
    "required": ["type", "title", "status", "retryable"],
}
PROGRAM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "object": {"const": "program"},
        "variants": {"type": "array", "items": {"type": "string"}},
        "streams": {"type": "boolean"},
        "chat": {"type": "boolean"},
        "inputs": {"type": "object"},
        "outputs": {"type": "object"},
    },
    "required": ["name", "object", "variants", "inputs", "outputs"],
}
