"""The description of the API for tools: OpenAPI 3.1, with a path and schemas of its own for each program."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.client.asking import LEAST_URGENT
from dspyq.config.programs import Program
from dspyq.prediction.request import MOST_UNIT_CHARACTERS
from dspyq.serve import ids
from dspyq.serve.callers import ANYONE, Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.idempotency import LONGEST_CHARACTERS
from dspyq.serve.own_key import KEY_SCHEMA
from dspyq.serve.problems import Declined
from dspyq.serve.programs import visible_programs
from dspyq.serve.values import OF_INPUTS, SchemaForm, fields_schema

_VERSION = "3.1.1"
#: Statuses of problems that any request may be answered with, and those of requests with a body.
_ALWAYS = (401, 403, 404, 429, 500, 503)
_WITH_BODY = (400, 408, 413, 415, 422)
#: A prediction may fail with these.
_OF_PREDICTIONS = (402, 409, 502, 504)
JsonObject = dict[str, Any]


class ShowDescription:
    """``GET /openapi.json``: what the caller may see; without a key, the paths that all programs share."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await _reader(exchange)
        programs = visible_programs(caller) if caller is not None else []
        await exchange.reply_json(200, describe_api(programs, caller or ANYONE, exchange.path("")))


async def _reader(exchange: Exchange) -> Caller | None:
    """Return the caller, or anyone where all may see all programs; None for a caller without a key."""
    if exchange.door.serve.public_docs:
        return ANYONE
    try:
        return await recognized(exchange)
    except Declined:
        return None


def describe_api(programs: Iterable[Program], caller: Caller, root_path: str) -> JsonObject:
    """Return the description.

    Args:
        programs: The programs in it.
        caller: The caller that reads it, which may not be allowed all variants.
        root_path: The path that the API is served under.
    """
    paths: JsonObject = {}
    schemas: JsonObject = {
        "Prediction": _prediction({"type": "object"}),
        "Problem": _PROBLEM,
        "Program": _PROGRAM,
        "Key": KEY_SCHEMA,
    }
    for program in programs:
        inputs = _hoisted(program, OF_INPUTS, "inputs", schemas)
        outputs = _hoisted(program, SchemaForm(is_of_outputs=True), "outputs", schemas)
        schemas[f"{program.name}.Prediction"] = _prediction(outputs)
        paths[f"/v1/programs/{program.name}/predictions"] = {"post": _ask(program, caller, inputs)}
    paths |= {
        "/v1/predictions/{prediction}": {
            "parameters": [_ID],
            "get": {
                "operationId": "lookAtPrediction",
                "summary": "Look at a prediction, or wait for its answer",
                "tags": ["predictions"],
                "parameters": [_WAIT],
                "responses": {"200": _content("The prediction", "Prediction"), **_problems(*_ALWAYS, 410, 422)},
            },
            "delete": {
                "operationId": "deletePrediction",
                "summary": "Cancel a prediction and forget it",
                "tags": ["predictions"],
                "responses": {"204": {"description": "It is gone"}, **_problems(*_ALWAYS)},
            },
        },
        "/v1/predictions/{prediction}/cancel": {
            "parameters": [_ID],
            "post": {
                "operationId": "cancelPrediction",
                "summary": "Take one's own interest in a prediction back; its job ends with its last caller",
                "tags": ["predictions"],
                "responses": {"200": _content("The prediction", "Prediction"), **_problems(*_ALWAYS, 410)},
            },
        },
        "/v1/predictions/{prediction}/events": {
            "parameters": [_ID],
            "get": {
                "operationId": "listenToPrediction",
                "summary": "Get the text of a prediction while it comes, as server-sent events",
                "tags": ["predictions"],
                "parameters": [_LAST_EVENT_ID, _AFTER, _TOKEN],
                "responses": {"200": _EVENTS, **_problems(*_ALWAYS, 410, 422)},
            },
        },
        "/v1/key": {
            "get": {
                "operationId": "showKey",
                "summary": "Show the key that the request was sent with: its tenant, rights and limits",
                "tags": ["keys"],
                "responses": {"200": _content("The key", "Key"), **_problems(*_ALWAYS)},
            }
        },
        "/v1/programs": {
            "get": {
                "operationId": "listPrograms",
                "summary": "List the programs, with the schemas of their inputs and outputs",
                "tags": ["programs"],
                "responses": {"200": _json("The programs", _list_of("Program")), **_problems(*_ALWAYS)},
            }
        },
        "/v1/programs/{program}": {
            "parameters": [{"name": "program", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "showProgram",
                "summary": "Show a program",
                "tags": ["programs"],
                "responses": {"200": _content("The program", "Program"), **_problems(*_ALWAYS)},
            },
        },
    }
    return {
        "openapi": _VERSION,
        "info": {"title": "dspyq", "version": version("dspyq"), "description": "DSPy programs over HTTP."},
        "servers": [{"url": root_path or "/"}],
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _hoisted(program: Program, form: SchemaForm, side: str, schemas: JsonObject) -> JsonObject:
    """Return a reference to a schema of fields, which is put, with those of its nested types, among ``schemas``."""
    start = f"{program.name}.{side}"
    schema = fields_schema(program, form._replace(references=f"#/components/schemas/{start}.{{model}}"))
    schemas |= {f"{start}.{name}": nested for name, nested in schema.pop("$defs", {}).items()}
    schemas[start] = schema
    return _reference(start)


def _ask(program: Program, caller: Caller, inputs: JsonObject) -> JsonObject:
    own = f"{program.name}.Prediction"
    links = {
        name: {"operationId": operation, "parameters": {"prediction": "$response.body#/id"}}
        for name, operation in _LINKS.items()
    }
    answered = _content("The answer", own) | {"links": links}
    answered["content"] |= _EVENTS["content"]
    accepted = _content("The answer will be at its Location", own) | {
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "The path of the prediction"},
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds until a look is worth it"},
        },
        "links": links,
    }
    return {
        "operationId": f"ask.{program.name}",
        "summary": f"Ask {program.name}",
        "description": program.instructions or "",
        "tags": ["predictions"],
        "parameters": [_PREFER, _IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _body(program, caller, inputs)}}},
        "responses": {
            "200": answered,
            "202": accepted,
            **_problems(*_ALWAYS, *_WITH_BODY, *_OF_PREDICTIONS),
        },
    }


def _body(program: Program, caller: Caller, inputs: JsonObject) -> JsonObject:
    properties: JsonObject = {"inputs": inputs}
    if "variant" in caller.can:
        names = [name for name in program.variants if caller.variants is None or name in caller.variants]
        properties["variant"] = {"enum": [*names, None], "description": "The variant to force"}
    properties["unit"] = {
        "type": ["string", "null"],
        "maxLength": MOST_UNIT_CHARACTERS,
        "description": "The user or session that keeps its variant",
    }
    if "refresh" in caller.can:
        properties["refresh"] = {"type": "boolean", "default": False, "description": "Whether to compute it anew"}
    if "stream" in caller.can:
        properties["stream"] = {"type": "boolean", "default": False, "description": "Whether the answer is a stream"}
    properties["priority"] = {
        "type": ["integer", "null"],
        "minimum": caller.most_urgent,
        "maximum": LEAST_URGENT,
        "description": "The turn: the lowest is the most urgent",
    }
    return {"type": "object", "properties": properties, "required": ["inputs"], "additionalProperties": False}


def _prediction(outputs: JsonObject) -> JsonObject:
    properties: JsonObject = {
        "id": {"type": "string", "pattern": ids.PATTERN},
        "object": {"const": "prediction"},
        "status": {"enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
        "program": {"type": ["string", "null"]},
        "variant": {"type": ["string", "null"]},
        "created_at": {"type": "string", "format": "date-time"},
        "waits_for": {"enum": ["budget", "rate_limit", "breaker"]},
        "outputs": {"anyOf": [outputs, {"type": "null"}]},
        "metadata": {"anyOf": [_METADATA, {"type": "null"}]},
        "error": {"anyOf": [_reference("Problem"), {"type": "null"}]},
        "urls": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    required = [name for name in properties if name != "waits_for"]
    return {"type": "object", "properties": properties, "required": required}


def _content(description: str, schema: str) -> JsonObject:
    return _json(description, _reference(schema))


def _json(description: str, schema: JsonObject) -> JsonObject:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _list_of(schema: str) -> JsonObject:
    return {
        "type": "object",
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _reference(schema)}},
        "required": ["object", "data"],
    }


def _problems(*statuses: int) -> JsonObject:
    problem = {"content": {"application/problem+json": {"schema": _reference("Problem")}}}
    return {str(status): {"description": "A problem", **problem} for status in sorted(statuses)}


def _reference(schema: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{schema}"}


_LINKS = {
    "lookAtPrediction": "lookAtPrediction",
    "cancelPrediction": "cancelPrediction",
    "deletePrediction": "deletePrediction",
    "listenToPrediction": "listenToPrediction",
}
_ID = {
    "name": "prediction",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The id of a prediction",
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0},
    "description": "How many seconds to wait for the answer",
}
_EVENTS: JsonObject = {
    "description": "The stream: events status, delta, reset, and at the end completed, failed, cancelled or reconnect",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[0-9]{0,12}$"},
    "description": "The id of the last event that the client has: the stream goes on behind it",
}
_AFTER = {
    "name": "after",
    "in": "query",
    "schema": {"type": "string", "pattern": "^[0-9]{0,12}$"},
    "description": "The same, for clients that cannot send the header",
}
_TOKEN = {
    "name": "token",
    "in": "query",
    "schema": {"type": "string"},
    "description": "The token of `urls.events`, in place of a key",
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "schema": {"type": "string"},
    "description": "`wait=10` waits for so many seconds at most, `respond-async` not at all",
    "examples": {"wait": {"value": "wait=10"}, "async": {"value": "respond-async"}},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_CHARACTERS},
    "description": "The same key with the same body, within a day, is the same prediction",
}
_METADATA = {
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
_PROBLEM = {
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
_PROGRAM = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "object": {"const": "program"},
        "variants": {"type": "array", "items": {"type": "string"}},
        "streams": {"type": "boolean"},
        "inputs": {"type": "object"},
        "outputs": {"type": "object"},
    },
    "required": ["name", "object", "variants", "inputs", "outputs"],
}
_SCHEMAS = {"Problem": _PROBLEM, "Program": _PROGRAM, "Key": KEY_SCHEMA}
ROUTES = [Route("/openapi.json", ShowDescription(), methods=["GET"])]
