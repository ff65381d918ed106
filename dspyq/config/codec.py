"""The JSON form of a program's values: workers encode what a program returned, producers decode it to equal values.

Both know the types from the stated signature alone. A value that would come out of JSON as another one is refused when
it goes in, so nothing turns into null, text or a rounded number on the way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson
from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from dspyq.config.models import Program
from dspyq.config.signature import Field, SignatureError
from dspyq.errors import InvalidInputs, InvalidOutputs, NotAPrediction

_SHOWN_FAULTS = 3


def decode_inputs(program: Program, inputs: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Return a program's inputs as the types its signature states.

    Raises:
        InvalidInputs: If a field is missing, unknown, or does not fit its type.
    """
    stated = {field.name: field for field in program.signature.inputs}
    faults = [f"{name} is unknown" for name in inputs if name not in stated]
    decoded = {}
    for name, field in stated.items():
        if name not in inputs:
            faults.append(f"{name} is missing")
            continue
        try:
            decoded[name] = _adapter(field.type_text).validate_python(inputs[name])
        except Exception as error:  # noqa: BLE001 - validators of the user's own types raise anything
            faults.append(_explain(name, error))
    if faults:
        raise InvalidInputs(f"{program.name} takes {', '.join(stated)}: {'; '.join(faults)}")
    return decoded


def encode_outputs(program: Program, outputs: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Return what a program returned as JSON values.

    Outputs the signature does not state, such as a chain of thought's reasoning, become the nearest JSON.

    Raises:
        InvalidOutputs: If a stated output is missing, does not fit its type, or has no JSON form that decodes to an
            equal value.
    """
    stated = {field.name: field for field in program.signature.outputs}
    faults = [f"{name} is missing" for name in stated if name not in outputs]
    encoded: dict[str, JsonValue] = {}
    for name, value in outputs.items():
        if name not in stated:
            encoded[name] = _nearest_json(value)
            continue
        try:
            encoded[name] = _encode(stated[name], value)
        except Exception as error:  # noqa: BLE001 - serializers and comparisons of the user's own types raise anything
            faults.append(_explain(name, error))
    if faults:
        raise InvalidOutputs(f"{program.name} returned outputs that do not fit its signature: {'; '.join(faults)}")
    return encoded


def decode_outputs(program: Program, outputs: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Return encoded outputs as the types the signature states.

    A type whose module is not installed here stays JSON: whoever only passes answers on need not have it.

    Raises:
        NotAPrediction: If they were encoded under another signature than the one configured here.
    """
    decoded: dict[str, Any] = dict(outputs)
    for field in program.signature.outputs:
        if field.is_json or field.name not in decoded:
            continue
        try:
            decoded[field.name] = _decoder(field.type_text)(decoded[field.name])
        except Exception as error:
            raise NotAPrediction(
                f"the stored answer does not fit the signature of {program.name}: {_explain(field.name, error)}"
            ) from error
    return decoded


def find_type_faults(program: Program) -> Iterator[str]:
    """Say which stated types do not import or cannot be carried as JSON."""
    for field in (*program.signature.inputs, *program.signature.outputs):
        try:
            _adapter(field.type_text)
        except Exception as error:  # noqa: BLE001 - importing the user's own types raises anything
            reason = str(error).partition("\n")[0]
            yield f"programs.{program.name}.signature: {field.name}: {field.type_text}: {reason}"


@functools.cache
def _adapter(type_text: str) -> TypeAdapter[Any]:
    return TypeAdapter(Field("value", type_text).resolve())


@functools.cache
def _decoder(type_text: str) -> Callable[[JsonValue], Any]:
    try:
        return _adapter(type_text).validate_python
    except SignatureError:
        return _as_it_is


def _as_it_is(value: JsonValue) -> JsonValue:
    return value


def _encode(field: Field, value: Any) -> JsonValue:
    adapter = _adapter(field.type_text)
    typed = adapter.validate_python(value)
    if field.is_json:
        return _through_json(typed)
    # DSPy reads a model's reply by the same validation as this decodes, so only values that a program made itself can
    # fail here: a date where `date | str` is stated comes back as text.
    plain = _through_json(adapter.dump_python(typed, mode="json", warnings="none"))
    if adapter.validate_python(plain) != typed:
        raise ValueError(f"a {type(typed).__name__} does not come out of JSON as {field.type_text} unchanged")
    return plain


def _through_json(value: Any) -> JsonValue:
    plain: JsonValue = orjson.loads(orjson.dumps(value))
    if plain != value:  # orjson writes NaN and infinity as null, and dates as text
        raise ValueError("holds a value that JSON has no form for")
    return plain


def _nearest_json(value: Any) -> JsonValue:
    try:
        return _through_json(from_json(to_json(value, fallback=str, inf_nan_mode="strings", bytes_mode="base64")))
    except (TypeError, ValueError):  # half a surrogate pair, an integer beyond 64 bits, a cycle
        return str(value).encode(errors="backslashreplace").decode()


def _explain(name: str, error: Exception) -> str:
    """One line that quotes no value."""
    if not isinstance(error, ValidationError):
        return f"{name}: {type(error).__name__}: {error}".partition("\n")[0]
    lines = []
    for details in error.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_FAULTS]:
        inside = "".join(f"[{part!r}]" for part in details["loc"])
        lines.append(f"{name}{inside}: {details['msg'][0].lower()}{details['msg'][1:]}")
    return "; ".join(lines)
