"""The description of the API for tools: OpenAPI 3.1, with a path and schemas of its own for each program."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.config.programs import Program
from dspyq.serve.callers import ANYONE, Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.openapi import chat
from dspyq.serve.openapi.asking import asked_in_bulk, asked_once
from dspyq.serve.openapi.parts import (
    AFTER,
    ALWAYS,
    EVENTS,
    FIRST_DAY,
    LAST_DAY,
    LAST_EVENT_ID,
    METADATA,
    PREDICTION_ID,
    PROBLEM,
    PROGRAM,
    TOKEN,
    WAIT,
    WITH_BODY,
    JsonObject,
    content,
    json_of,
    list_of,
    problems,
    reference,
)
from dspyq.serve.own_key import KEY_SCHEMA
from dspyq.serve.predictions.feedback import FEEDBACK_SCHEMA
from dspyq.serve.predictions.ids import PATTERN
from dspyq.serve.problems import Declined
from dspyq.serve.programs import visible_programs
from dspyq.serve.usage import USAGE_SCHEMA
from dspyq.serve.values import OF_INPUTS, SchemaForm, fields_schema

_VERSION = "3.1.1"


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
        "Problem": PROBLEM,
        "Judgement": FEEDBACK_SCHEMA,
        "Judgements": list_of("Judgement"),
        "Program": PROGRAM,
        "Key": KEY_SCHEMA,
        "Usage": USAGE_SCHEMA,
    }
    for program in programs:
        inputs = _hoisted(program, OF_INPUTS, "inputs", schemas)
        outputs = _hoisted(program, SchemaForm(is_of_outputs=True), "outputs", schemas)
        schemas[f"{program.name}.Prediction"] = _prediction(outputs)
        paths[f"/v1/programs/{program.name}/predictions"] = {"post": asked_once(program, caller, inputs)}
        if "batch" in caller.can:
            many = {"post": asked_in_bulk(program, caller, inputs)}
            paths[f"/v1/programs/{program.name}/predictions:batch"] = many
    schemas |= chat.SCHEMAS
    paths |= chat.PATHS
    paths |= {
        "/v1/predictions/{prediction}": {
            "parameters": [PREDICTION_ID],
            "get": {
                "operationId": "lookAtPrediction",
                "summary": "Look at a prediction, or wait for its answer",
                "tags": ["predictions"],
                "parameters": [WAIT],
                "responses": {"200": content("The prediction", "Prediction"), **problems(*ALWAYS, 410, 422)},
            },
            "delete": {
                "operationId": "deletePrediction",
                "summary": "Cancel a prediction and forget it",
                "tags": ["predictions"],
                "responses": {"204": {"description": "It is gone"}, **problems(*ALWAYS)},
            },
        },
        "/v1/predictions/{prediction}/cancel": {
            "parameters": [PREDICTION_ID],
            "post": {
                "operationId": "cancelPrediction",
                "summary": "Take one's own interest in a prediction back; its job ends with its last caller",
                "tags": ["predictions"],
                "responses": {"200": content("The prediction", "Prediction"), **problems(*ALWAYS, 410)},
            },
        },
        "/v1/predictions/{prediction}/events": {
            "parameters": [PREDICTION_ID],
            "get": {
                "operationId": "listenToPrediction",
                "summary": "Get the text of a prediction while it comes, as server-sent events",
                "tags": ["predictions"],
                "parameters": [LAST_EVENT_ID, AFTER, TOKEN],
                "responses": {"200": EVENTS, **problems(*ALWAYS, 410, 422)},
            },
        },
        "/v1/predictions/{prediction}/feedback": {
            "parameters": [PREDICTION_ID],
            "post": {
                "operationId": "judgePrediction",
                "summary": "Judge an answer: for the experiment that counts the call, else for its variant",
                "tags": ["predictions"],
                "requestBody": {"required": True, "content": {"application/json": {"schema": FEEDBACK_SCHEMA}}},
                "responses": {
                    "201": json_of("The judgement is counted", {"type": "object"}),
                    **problems(*ALWAYS, *WITH_BODY, 409, 410),
                },
            },
            "get": {
                "operationId": "listJudgements",
                "summary": "List the judgements that were given of an answer",
                "tags": ["predictions"],
                "responses": {"200": content("The judgements", "Judgements"), **problems(*ALWAYS)},
            },
        },
        "/v1/usage": {
            "get": {
                "operationId": "showUsage",
                "summary": "Show calls, tokens and costs by day, and what is left of the limits",
                "tags": ["keys"],
                "parameters": [FIRST_DAY, LAST_DAY],
                "responses": {"200": content("The usage", "Usage"), **problems(*ALWAYS, 422)},
            }
        },
        "/v1/key": {
            "get": {
                "operationId": "showKey",
                "summary": "Show the key that the request was sent with: its tenant, rights and limits",
                "tags": ["keys"],
                "responses": {"200": content("The key", "Key"), **problems(*ALWAYS)},
            }
        },
        "/v1/programs": {
            "get": {
                "operationId": "listPrograms",
                "summary": "List the programs, with the schemas of their inputs and outputs",
                "tags": ["programs"],
                "responses": {"200": json_of("The programs", list_of("Program")), **problems(*ALWAYS)},
            }
        },
        "/v1/programs/{program}": {
            "parameters": [{"name": "program", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {
                "operationId": "showProgram",
                "summary": "Show a program",
                "tags": ["programs"],
                "responses": {"200": content("The program", "Program"), **problems(*ALWAYS)},
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
    return reference(start)


def _prediction(outputs: JsonObject) -> JsonObject:
    properties: JsonObject = {
        "id": {"type": "string", "pattern": PATTERN},
        "object": {"const": "prediction"},
        "status": {"enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
        "program": {"type": ["string", "null"]},
        "variant": {"type": ["string", "null"]},
        "created_at": {"type": "string", "format": "date-time"},
        "waits_for": {"enum": ["budget", "rate_limit", "breaker"]},
        "outputs": {"anyOf": [outputs, {"type": "null"}]},
        "metadata": {"anyOf": [METADATA, {"type": "null"}]},
        "error": {"anyOf": [reference("Problem"), {"type": "null"}]},
        "urls": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    required = [name for name in properties if name != "waits_for"]
    return {"type": "object", "properties": properties, "required": required}


ROUTES = [Route("/openapi.json", ShowDescription(), methods=["GET"])]
