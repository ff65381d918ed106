"""Descriptions of the paths at which one program is asked."""

from __future__ import annotations

from dspyq.client.asking import LEAST_URGENT
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.prediction.request import MOST_UNIT_CHARACTERS
from dspyq.serve.callers import Caller
from dspyq.serve.openapi.parts import (
    ALWAYS,
    EVENTS,
    IDEMPOTENCY_KEY,
    LINKS,
    OF_PREDICTIONS,
    PREFER,
    WITH_BODY,
    JsonObject,
    content,
    json_of,
    problems,
    reference,
)  # fmt: skip


def asked_once(program: Program, caller: Caller, inputs: JsonObject) -> JsonObject:
    """Return the operation for one question of a program.

    Args:
        program: The program.
        caller: The caller that reads the description.
        inputs: The schema of the inputs.
    """
    own = f"{program.name}.Prediction"
    links = {
        name: {"operationId": operation, "parameters": {"prediction": "$response.body#/id"}}
        for name, operation in LINKS.items()
    }
    answered = content("The answer", own) | {"links": links}
    answered["content"] |= EVENTS["content"]
    accepted = content("The answer will be at its Location", own) | {
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
        "parameters": [PREFER, IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _body(program, caller, inputs)}}},
        "responses": {
            "200": answered,
            "202": accepted,
            **problems(*ALWAYS, *WITH_BODY, *OF_PREDICTIONS),
        },
    }


def asked_in_bulk(program: Program, caller: Caller, inputs: JsonObject) -> JsonObject:
    """Return the operation for many questions of a program; the arguments are those of ``asked_once``."""
    rows = {"type": "array", "items": inputs, "minItems": 1, "maxItems": get_settings().serve.max_rows}
    body = _object({"rows": rows, **_options(program, caller)}, "rows")
    answers = {"type": "array", "items": reference(f"{program.name}.Prediction")}
    return {
        "operationId": f"askMany.{program.name}",
        "summary": f"Ask {program.name} many questions",
        "tags": ["predictions"],
        "parameters": [PREFER, IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": json_of(
                "The predictions, in the order of the rows; those that are not there yet are queued",
                {"type": "object", "properties": {"predictions": answers}, "required": ["predictions"]},
            ),
            **problems(*ALWAYS, *WITH_BODY),
        },
    }


def _body(program: Program, caller: Caller, inputs: JsonObject) -> JsonObject:
    properties: JsonObject = {"inputs": inputs, **_options(program, caller)}
    if "stream" in caller.can:
        properties["stream"] = {"type": "boolean", "default": False, "description": "Whether the answer is a stream"}
    return _object(properties, "inputs")


def _object(properties: JsonObject, required: str) -> JsonObject:
    return {"type": "object", "properties": properties, "required": [required], "additionalProperties": False}


def _options(program: Program, caller: Caller) -> JsonObject:
    """Return the options that a caller may state beside the inputs."""
    properties: JsonObject = {}
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
    properties["priority"] = {
        "type": ["integer", "null"],
        "minimum": caller.most_urgent,
        "maximum": LEAST_URGENT,
        "description": "The turn: the lowest is the most urgent",
    }
    return properties
