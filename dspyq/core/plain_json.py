"""JSON that keeps a user's dict as it is, whatever its keys.

Celery writes what JSON has no form for, such as a date, as a dict of two keys, and reads each dict of these keys as
what it then stands for. A user's own dict of these keys would come out as something else, or not at all. Here it is
written as a type of its own, which stands for the dict.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from kombu import serialization
from kombu.utils import json as celery_json

#: The name of the serializer; its content type is that of Celery's own JSON.
SERIALIZER = "dspyq-json"
_TYPE, _VALUE = "__type__", "__value__"
_KEYS = {_TYPE, _VALUE}
_MARK = "dspyq.dict"
_SIGN = f'"{_TYPE}"'
_CONTENT_TYPE = "application/json"


def dumps(value: Any) -> str:
    """Write a value as Celery does, with dicts of these keys shielded so that they are read unchanged."""
    text: str = celery_json.dumps(value)
    return celery_json.dumps(_shielded(value)) if _SIGN in text else text


def shield(text: bytes) -> bytes:
    """Return plain JSON as ``dumps`` writes it."""
    return orjson.dumps(_shielded(orjson.loads(text))) if _SIGN.encode() in text else text


def shield_inputs(body: bytes) -> bytes:
    """Return a prediction's body with plain inputs: a message of an earlier version, or of another serializer.

    Raises:
        ValueError: If it is no body of a task.
        RecursionError: If it is too deep to read.
    """
    if _SIGN.encode() not in body:
        return body
    args, inputs, embed = json.loads(body)
    return json.dumps([args, _shielded(inputs, keep_marked=True), embed]).encode()


def _shielded(value: Any, *, keep_marked: bool = False) -> Any:
    if isinstance(value, dict):
        inner = {name: _shielded(part, keep_marked=keep_marked) for name, part in value.items()}
        if inner.keys() != _KEYS or (keep_marked and inner[_TYPE] == _MARK):
            return inner
        return {_TYPE: _MARK, _VALUE: [inner[_TYPE], inner[_VALUE]]}
    if isinstance(value, (list, tuple)):
        return [_shielded(part, keep_marked=keep_marked) for part in value]
    return value


def _read(pair: list[Any]) -> dict[str, Any]:
    stated, value = pair
    return {_TYPE: stated, _VALUE: value}


def register_json() -> None:
    """Register ``dumps`` as Celery's serializer."""
    celery_json._decoders[_MARK] = _read  # noqa: SLF001 - register_type also takes a Python type, and there is none
    serialization.register(SERIALIZER, dumps, None, content_type=_CONTENT_TYPE, content_encoding="utf-8")
    serialization.registry.type_to_name[_CONTENT_TYPE] = "json"  # any Celery application can read it
