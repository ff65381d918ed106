"""The JSON form of a program's values: workers encode what a program returned, producers decode it to equal values.

Both know the types from the stated signature alone. A value has the JSON that pydantic writes of it, in the first form
that validates to an equal one; where none does, its exact form goes along (``dspyq.config.exact``). What has neither is
refused when it goes in, so nothing turns into null, text or a rounded number on the way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import from_json, to_json, to_jsonable_python

from dspyq.config import exact, media
from dspyq.config.set_order import order_sets
from dspyq.config.signature import Field, SignatureError
from dspyq.config.type_faults import explain_unbuilt, find_uncarriable_parts
from dspyq.core.depth import MOST_DEPTH, has_deep_objects, is_too_deep
from dspyq.errors import InvalidInputs, InvalidOutputs, NotAPrediction

if TYPE_CHECKING:
    from dspyq.config.programs import Program

_SHOWN_FAULTS = 3
#: Options of pydantic's JSON, from the form readers expect to the one most likely to decode to the same value.
_FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"by_alias": True},
    {"round_trip": True},
    {"by_alias": True, "round_trip": True},
)
#: An input's exact form is a dict of this key alone.
EXACT_KEY = "$dspyq.exact"
#: Types that state what an open one holds, as examples.
_STATED = {"any": "date", "dict": "dict[str, date]", "list": "list[date]"}
#: Errors of validators that the user wrote.
_OWN_ERRORS = frozenset({"value_error", "assertion_error"})


class Encoded(NamedTuple):
    """A program's outputs in JSON.

    Attributes:
        plain: Each output as readers of JSON expect it.
        exact: The exact form of those that do not validate to an equal value.
    """

    plain: dict[str, JsonValue]
    exact: dict[str, JsonValue]


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
            if field.may_be_left_out:
                continue
            faults.append(f"{name} is missing")
            continue
        try:
            decoded[name] = _decode_input(field, inputs[name])
        except Exception as error:  # noqa: BLE001 - validators of the user's own types raise anything
            faults.append(_explain(name, error))
    if faults:
        raise InvalidInputs(f"{program.name} takes {', '.join(stated)}: {'; '.join(faults)}")
    return decoded


def encode_inputs(program: Program, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs with values of types of the user's own as JSON that the worker reads as equal ones.

    A value that does not fit its type stays as it is: the producer's contract rejects it.

    Raises:
        InvalidInputs: If a value fits and has no form in JSON that gives it back.
    """
    encoded = dict(inputs)
    for field in program.signature.inputs:
        value = encoded.get(field.name)
        if field.is_json or not field.is_loaded or is_too_deep(value) or has_deep_objects(value):
            continue
        if _is_plain(value):
            if field.is_of_dspy:
                _check_plain(program, field, value)
            continue
        try:
            adapter = _adapter(field.type_text)
            if not exact.is_same(adapter.validate_python(value), value):
                continue
        except Exception:  # noqa: BLE001, S112 - the contract reports what is wrong
            continue
        try:
            plain, exact_form = _write(adapter, _classes(field.type_text), value)
        except Exception as error:  # noqa: BLE001 - serializers and validators of the user's own types raise anything
            raise InvalidInputs(
                f"{program.name} cannot be sent this {type(value).__name__}: {_explain(field.name, error)}"
            ) from None
        encoded[field.name] = plain if exact_form is None else {EXACT_KEY: exact_form}
    return encoded


def _check_plain(program: Program, field: Field, value: Any) -> None:
    try:
        _decode_input(field, value)
    except Exception as error:  # noqa: BLE001 - serializers and validators of the user's own types raise anything
        raise InvalidInputs(f"{program.name}: {_explain(field.name, error)}") from None


def encode_outputs(program: Program, outputs: Mapping[str, Any]) -> Encoded:
    """Return what a program returned as JSON values.

    Outputs the signature does not state, such as a chain of thought's reasoning, become the nearest JSON.

    Raises:
        InvalidOutputs: If a stated output is missing, does not fit its type, or has no JSON form that decodes to an
            equal value; or if outputs nest deeper than ``MOST_DEPTH`` levels.
    """
    if is_too_deep(outputs):
        raise _outputs_too_deep(program)
    try:
        encoded = _encode_outputs(program, outputs)
    except RecursionError:
        raise _outputs_too_deep(program) from None
    if is_too_deep(encoded.plain) or is_too_deep(encoded.exact):
        raise _outputs_too_deep(program)
    return encoded


def _outputs_too_deep(program: Program) -> InvalidOutputs:
    return InvalidOutputs(f"{program.name} returned outputs that nest deeper than {MOST_DEPTH} levels")


def _encode_outputs(program: Program, outputs: Mapping[str, Any]) -> Encoded:
    stated = {field.name: field for field in program.signature.outputs}
    faults = [f"{name} is missing" for name in stated if name not in outputs]
    encoded = Encoded({}, {})
    for name, value in outputs.items():
        if name not in stated:
            encoded.plain[name] = _nearest_json(value)
            continue
        try:
            encoded.plain[name], exact_form = _encode(stated[name], value)
        except Exception as error:  # noqa: BLE001 - serializers and comparisons of the user's own types raise anything
            if _is_recursion(error):
                raise RecursionError from None
            faults.append(_explain(name, error))
            continue
        if exact_form is not None:
            encoded.exact[name] = exact_form
    if faults:
        raise InvalidOutputs(f"{program.name} returned outputs that do not fit its signature: {'; '.join(faults)}")
    return encoded


def decode_outputs(
    program: Program, outputs: Mapping[str, JsonValue], exact_forms: Mapping[str, JsonValue] | None = None
) -> dict[str, Any]:
    """Return encoded outputs as the types the signature states.

    A type whose module is not installed here stays JSON: a process that only forwards answers does not need it.

    Args:
        program: The program that returned them.
        outputs: Its outputs in JSON.
        exact_forms: The exact form of those that have one.

    Raises:
        NotAPrediction: If they were encoded under another signature than the one configured here.
    """
    decoded: dict[str, Any] = dict(outputs)
    for field in program.signature.outputs:
        if field.is_json or field.name not in decoded:
            continue
        try:
            decoded[field.name] = _decode_output(field, decoded[field.name], (exact_forms or {}).get(field.name))
        except Exception as error:
            raise NotAPrediction(
                f"the stored answer does not fit the signature of {program.name}: {_explain(field.name, error)}"
            ) from error
    return decoded


def find_type_faults(program: Program) -> Iterator[str]:
    """Yield a fault for each stated type that does not import or that JSON cannot carry."""
    outputs = {field.name for field in program.signature.outputs}
    for field in (*program.signature.inputs, *program.signature.outputs):
        where = f"{program.setting('signature')}: {field.name}: {field.type_text}"
        try:
            adapter = _adapter(field.type_text)
            if field.default_text is not None:
                adapter.validate_python(field.default)
            if not field.is_json:
                yield from (
                    f"{where}: {fault}" for fault in find_uncarriable_parts(adapter, is_output=field.name in outputs)
                )
        except ValidationError:
            yield f"{where}: its default {field.default_text} is of another type"
        except PydanticSchemaGenerationError as error:
            yield f"{where}: {explain_unbuilt(error)}"
        except Exception as error:  # noqa: BLE001 - importing the user's own types raises anything
            yield f"{where}: {str(error).partition(chr(10))[0]}"


def find_type_notes(program: Program) -> Iterator[str]:
    """Yield a warning for each type that JSON carries only in part."""
    yield from find_open_types(program)
    yield from probe_values(program)


def find_open_types(program: Program) -> Iterator[str]:
    """Name the outputs whose type leaves open which values they hold: JSON's own alone come back.

    They get no exact form, which 0.1 would not read: it takes their JSON as it is.
    """
    for field in program.signature.outputs:
        if field.is_json and field.open_part is not None:
            yield (
                f"{program.setting('signature')}: {field.name}: {field.type_text} brings back JSON values only; "
                f"a run that returns dates, tuples, sets or keys that are no text fails once paid: state what "
                f"{field.open_part} holds, as {_STATED[field.open_part.lower()]}"
            )


def probe_values(program: Program) -> Iterator[str]:
    """Name the classes of a signature whose values, made without arguments, cannot be carried; others are not tried."""
    for field in (*program.signature.inputs, *program.signature.outputs):
        for class_ in () if field.is_json else _classes(field.type_text).values():
            if not (issubclass(class_, BaseModel) or is_dataclass(class_)):
                continue
            try:
                value = class_()
            except Exception:  # noqa: BLE001, S112 - it takes arguments
                continue
            try:
                _write(TypeAdapter(class_), _classes(field.type_text), value)
            except Exception as error:  # noqa: BLE001 - serializers and validators of the user's own types raise anything
                where = f"{program.setting('signature')}: {field.name}: {field.type_text}"
                yield f"{where}: the default {class_.__name__}() cannot be carried ({_explain('value', error)})"


@functools.cache
def _adapter(type_text: str) -> TypeAdapter[Any]:
    return TypeAdapter(Field("value", type_text).resolve())


@functools.cache
def _classes(type_text: str) -> dict[str, type]:
    return exact.classes_of(_adapter(type_text))


def _decode_input(field: Field, value: JsonValue) -> Any:
    if not field.is_json and isinstance(value, dict) and is_exact(value):
        return exact.read(value[EXACT_KEY], _classes(field.type_text))
    return _fit(_adapter(field.type_text), media.wrap(field.resolve(), value) if field.is_of_dspy else value)


def fits_as_it_is(field: Field, value: Any) -> bool:
    """Return True if a value is one that its type's validators return, though they may not take it."""
    try:
        return field.is_loaded and _fit(_adapter(field.type_text), value) is value
    except Exception:  # noqa: BLE001 - validators of the user's own types raise anything
        return False


def is_exact(value: Any) -> bool:
    """Return True if an input came in its exact form."""
    return isinstance(value, dict) and value.keys() == {EXACT_KEY}


def _decode_output(field: Field, value: JsonValue, exact_form: JsonValue) -> Any:
    try:
        adapter = _adapter(field.type_text)
    except SignatureError:
        return value
    return adapter.validate_python(value) if exact_form is None else exact.read(exact_form, _classes(field.type_text))


def _encode(field: Field, value: Any) -> tuple[JsonValue, JsonValue]:
    adapter = _adapter(field.type_text)
    if not field.is_json and has_deep_objects(value):
        raise RecursionError
    typed = _fit(adapter, value)
    if field.is_json:
        return _through_json(typed), None
    return _write(adapter, _classes(field.type_text), typed)


def _fit(adapter: TypeAdapter[Any], value: Any) -> Any:
    """Return a value as its type, and as the program returned it where it is of that type already.

    DSPy has validated what a model wrote. Validators need not take what they gave, nor leave it as it is.
    """
    try:
        typed = adapter.validate_python(value)
    except Exception as error:
        is_own = not isinstance(error, ValidationError) or all(d["type"] in _OWN_ERRORS for d in error.errors())
        if not is_own and not _comes_back(adapter, value):
            raise
        try:
            adapter.dump_python(value, warnings="error")
        except Exception:  # noqa: BLE001 - it is not of that type
            raise error from None
        return value
    return value if exact.is_alike(typed, value) else typed


def _comes_back(adapter: TypeAdapter[Any], value: Any) -> bool:
    """Return True for a value that its type writes and reads again but does not take, as of ``Json`` or base64."""
    try:
        plain = adapter.dump_python(value, mode="json", round_trip=True, warnings="error")
        return plain != value and exact.is_same(adapter.validate_python(plain), value)
    except Exception:  # noqa: BLE001 - serializers and validators of the user's own types raise anything
        return False


def _write(adapter: TypeAdapter[Any], classes: exact.Classes, value: Any) -> tuple[JsonValue, JsonValue]:
    """Return a value in JSON, and in its exact form where that JSON does not validate to an equal value."""
    shown: list[JsonValue] = []
    for write in _writers(adapter):
        try:
            plain = order_sets(value, _through_json(write(value)))
            shown.append(plain)
            if exact.is_same(adapter.validate_python(plain), value):
                return plain, None
        except Exception:  # noqa: BLE001, S112 - serializers and validators of the user's own types raise anything
            continue
    try:
        form = _through_json(exact.write(value, classes))
    except exact.NotCarriable:
        narrowed = exact.narrow(value, classes)
        if exact.is_same(narrowed, value):
            raise
        return _write(adapter, classes, narrowed)
    if not exact.is_same(exact.read(form, classes), value):
        raise ValueError(f"a {type(value).__name__} does not come out of JSON unchanged")
    return (shown[0] if shown else _nearest_json(value)), form


def _writers(adapter: TypeAdapter[Any]) -> Iterator[Callable[[Any], Any]]:
    for form in _FORMS:
        yield functools.partial(adapter.dump_python, mode="json", warnings="none", **form)
    yield exact.write_fields


def _is_plain(value: Any) -> bool:
    """Return True if a value is made of JSON's own types alone."""
    match value:
        case dict():
            return all(type(key) is str and _is_plain(part) for key, part in value.items())
        case list():
            return all(map(_is_plain, value))
        case _:
            return type(value) in {str, int, float, bool, type(None)}


def _is_recursion(error: Exception) -> bool:
    """Return whether a value nests too deep for Python, or for orjson, which raises a ``TypeError`` of its own."""
    return isinstance(error, RecursionError) or (type(error) is TypeError and str(error).startswith("Recursion limit"))


def _through_json(value: Any) -> JsonValue:
    plain: JsonValue = orjson.loads(orjson.dumps(value))
    if plain != value:  # orjson writes NaN and infinity as null, and dates as text
        raise ValueError("holds a value that JSON has no form for")
    return plain


def _nearest_json(value: Any) -> JsonValue:
    if has_deep_objects(value):  # its text would be as deep
        return f"a {type(value).__name__} that nests deeper than {MOST_DEPTH} levels"
    try:
        # A model writes NaN as null, whatever the mode; as a Python value it keeps it.
        jsonable = to_jsonable_python(value, fallback=str, inf_nan_mode="constants", bytes_mode="base64")
        return _through_json(from_json(to_json(jsonable, inf_nan_mode="strings")))
    except (TypeError, ValueError):  # half a surrogate pair, an integer beyond 64 bits, a cycle
        return str(value).encode(errors="backslashreplace").decode()


def _explain(name: str, error: Exception) -> str:
    """Return a fault in one line that quotes no value."""
    if not isinstance(error, ValidationError):
        return f"{name}: {type(error).__name__}: {error}".partition("\n")[0]
    lines = []
    for details in error.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_FAULTS]:
        inside = "".join(f"[{part!r}]" for part in details["loc"])
        lines.append(f"{name}{inside}: {details['msg'][0].lower()}{details['msg'][1:]}")
    return "; ".join(lines)
