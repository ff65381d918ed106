"""Descriptions of the paths in OpenAI's form."""

from __future__ import annotations

from typing import Any

from dspyq.serve.openapi.parts import ALWAYS, OF_PREDICTIONS, WITH_BODY, JsonObject, json_of, list_of, reference

_TEXT: JsonObject = {"type": "string"}
_NUMBER_OR_NOTHING: JsonObject = {"type": ["number", "null"]}


def _object(required: tuple[str, ...], **properties: Any) -> JsonObject:
    return {"type": "object", "properties": properties, "required": list(required)}


def _errors(*statuses: int) -> JsonObject:
    error = {"content": {"application/json": {"schema": reference("ChatError")}}}
    return {str(status): {"description": "An error in OpenAI's form", **error} for status in sorted({*statuses})}


_PART = _object(("type", "text"), type={"const": "text"}, text=_TEXT)
_MESSAGE = _object(
    ("role", "content"),
    role={"enum": ["system", "developer", "user", "assistant"]},
    content={"anyOf": [_TEXT, {"type": "array", "items": _PART}]},
)
SCHEMAS: JsonObject = {
    "ChatRequest": _object(
        ("model", "messages"),
        model={"type": "string", "description": "A program, or `program:variant`"},
        messages={"type": "array", "items": _MESSAGE, "minItems": 1},
        stream={"type": ["boolean", "null"]},
        stream_options={"anyOf": [_object((), include_usage={"type": ["boolean", "null"]}), {"type": "null"}]},
        user={"type": ["string", "null"], "description": "The user or session that keeps its variant"},
        temperature=_NUMBER_OR_NOTHING | {"description": "Ignored, as is all else that the model's table states"},
    )
    | {"additionalProperties": False},
    "ChatCompletion": _object(
        ("id", "object", "created", "model", "choices"),
        id=_TEXT,
        object={"const": "chat.completion"},
        created={"type": "integer"},
        model=_TEXT,
        choices={
            "type": "array",
            "items": _object(
                ("index", "message", "finish_reason"),
                index={"type": "integer"},
                message=_object(("role", "content"), role={"const": "assistant"}, content=_TEXT),
                finish_reason={"enum": ["stop", "length"]},
            ),
        },
        usage={"type": "object", "additionalProperties": {"type": "integer"}},
    ),
    "ChatError": _object(
        ("error",),
        error=_object(
            ("message", "type", "code", "param"),
            message=_TEXT,
            type=_TEXT,
            code=_TEXT,
            param={"type": ["string", "null"]},
        ),
    ),
    "Model": _object(
        ("id", "object", "created", "owned_by"),
        id=_TEXT,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_TEXT,
    ),
}
_COMPLETED = json_of("The completion, or its chunks", reference("ChatCompletion"))
_COMPLETED["content"]["text/event-stream"] = {"schema": {"type": "string"}}
PATHS: JsonObject = {
    "/v1/chat/completions": {
        "post": {
            "operationId": "completeChat",
            "summary": "Chat with a program, in OpenAI's form",
            "tags": ["chat"],
            "requestBody": {"required": True, "content": {"application/json": {"schema": reference("ChatRequest")}}},
            "responses": {"200": _COMPLETED, **_errors(*ALWAYS, *WITH_BODY, *OF_PREDICTIONS)},
        }
    },
    "/v1/models": {
        "get": {
            "operationId": "listModels",
            "summary": "List the programs that chat, in OpenAI's form",
            "tags": ["chat"],
            "responses": {"200": json_of("The models", list_of("Model")), **_errors(*ALWAYS)},
        }
    },
    "/v1/models/{model}": {
        "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        "get": {
            "operationId": "showModel",
            "summary": "Show a program that chats, in OpenAI's form",
            "tags": ["chat"],
            "responses": {"200": json_of("The model", reference("Model")), **_errors(*ALWAYS)},
        },
    },
}
