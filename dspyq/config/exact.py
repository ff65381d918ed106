"""Values as JSON part by part, past the serializers and validators of their own types.

JSON that pydantic writes need not validate to an equal value: aliases, excluded fields, private attributes and
validators that are not idempotent all change it. This form holds the parts of a value instead. Reading it builds
instances only of classes that the stated type names, and calls none of their code.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import ipaddress
import math
import pathlib
import re
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import AnyUrl, BaseModel, JsonValue, TypeAdapter
from pydantic_core import to_jsonable_python

from dspyq.config.set_order import in_order

Classes = Mapping[str, type]

_LARGEST_INTEGER = 2**63 - 1
_CONTAINERS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset", deque: "deque"}
_TEXTS: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: (lambda value: base64.b64encode(value).decode(), base64.b64decode),
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (datetime.time.isoformat, datetime.time.fromisoformat),
    decimal.Decimal: (str, decimal.Decimal),
    uuid.UUID: (str, uuid.UUID),
}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "OrderedDict", Counter: "Counter"}
_READ_MAPPING: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "Counter": lambda pairs: Counter(dict(pairs)),
}
#: Types that pydantic writes and reads without a loss.
_BY_PYDANTIC: dict[str, type] = {
    type_.__name__: type_
    for type_ in (
        complex, re.Pattern, pathlib.Path, AnyUrl, ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network,
        ipaddress.IPv6Network, ipaddress.IPv4Interface, ipaddress.IPv6Interface,
    )
}  # fmt: skip
_READ_TEXT = {type_.__name__: read for type_, (_, read) in _TEXTS.items()}
_READ_CONTAINER: dict[str, Callable[[Iterator[Any]], Any]] = {name: type_ for type_, name in _CONTAINERS.items()}


class NotCarriable(ValueError):
    """A part of a value has no JSON form that decodes to the same value."""


def classes_of(adapter: TypeAdapter[Any]) -> dict[str, type]:
    """Return every class that a type is made of, by its name."""
    found: dict[str, type] = {}
    for part in schema_parts(adapter.core_schema):
        for key in ("cls", "function"):
            if isinstance(part.get(key), type):
                found[_name(part[key])] = part[key]
    return found


def schema_parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Walk over a core schema and all schemas within it."""
    if isinstance(schema, Mapping):
        if isinstance(schema.get("type"), str):
            yield schema
        for key, value in schema.items():
            if key not in {"metadata", "expected", "default"}:
                yield from schema_parts(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from schema_parts(value)


def write(value: Any, classes: Classes) -> JsonValue:  # noqa: C901, PLR0911 - one for each kind of value
    """Return a value's exact form.

    Args:
        value: Any value.
        classes: The classes that its stated type is made of.

    Raises:
        NotCarriable: If a part of it is of another class, or is not data.
    """
    type_ = type(value)
    if value is None or type_ in {str, bool}:
        return value  # type: ignore[no-any-return]  # one of those types
    if type_ in {int, float}:
        return _number(value)
    if type_ is list:
        return [write(part, classes) for part in value]
    if type_ in _MAPPINGS:
        return {_MAPPINGS[type_]: [[write(key, classes), write(part, classes)] for key, part in value.items()]}
    if type_ in _CONTAINERS:
        members = [write(part, classes) for part in value]
        return {_CONTAINERS[type_]: in_order(members) if type_ in {set, frozenset} else members}
    if type_ is datetime.timedelta:
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if type_ in _TEXTS:
        return {type_.__name__: _TEXTS[type_][0](value)}
    if (by_pydantic := _type_of_pydantic(value)) is not None:
        return {"pydantic": [by_pydantic, _adapter(by_pydantic).dump_python(value, mode="json")]}
    name = _name(type_)
    if classes.get(name) is not type_:
        raise NotCarriable(f"a {type_.__name__} is no part of the stated type")
    if isinstance(value, enum.Enum):
        return {"enum": [name, value.name]}
    if isinstance(value, tuple):
        return {"named": [name, *(write(part, classes) for part in value)]}
    return {"object": [name, *(_write_state(state, classes) for state in _states(value))]}


def read(form: Any, classes: Classes) -> Any:  # noqa: C901, PLR0911 - as write
    """Return the value of an exact form.

    Raises:
        NotCarriable: If it names a class that its stated type is not made of.
    """
    if isinstance(form, list):
        return [read(part, classes) for part in form]
    if not isinstance(form, dict):
        return form
    ((kind, content),) = form.items()
    if kind in _READ_MAPPING:
        return _READ_MAPPING[kind]([(read(key, classes), read(part, classes)) for key, part in content])
    if kind in _READ_CONTAINER:
        return _READ_CONTAINER[kind](read(part, classes) for part in content)
    if kind in _READ_TEXT:
        return _READ_TEXT[kind](content)
    if kind == "timedelta":
        return datetime.timedelta(*content)
    name, *parts = content
    if kind == "pydantic":
        return _adapter(name).validate_python(parts[0])
    if name not in classes:
        raise NotCarriable(f"{name} is no part of the stated type")
    class_ = classes[name]
    if kind == "enum":
        return class_[parts[0]]  # type: ignore[index]  # an enum's members are looked up like that
    if kind == "named":
        return tuple.__new__(class_, (read(part, classes) for part in parts))
    return _build(class_, [{key: read(part, classes) for key, part in (state or {}).items()} for state in parts], parts)


def write_fields(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    """Return a value with each object as a dict of its fields, from which most types can be validated."""
    match value:
        case enum.Enum():
            return write_fields(value.value)
        case BaseModel() if "root" in type(value).model_fields and "root" in vars(value):
            return write_fields(vars(value)["root"])
        case BaseModel():
            own = {name: vars(value)[name] for name in type(value).model_fields if name in vars(value)}
            return {name: write_fields(part) for name, part in (own | (value.model_extra or {})).items()}
        case _ if dataclasses.is_dataclass(value):
            return {name: write_fields(part) for name, part in _attributes(value).items()}
        case dict():
            return {to_jsonable_python({key: None}).popitem()[0]: write_fields(part) for key, part in value.items()}
        case list() | tuple() | set() | frozenset() | deque():
            return [write_fields(part) for part in value]
        case _:
            return to_jsonable_python(value)


def narrow(value: Any, classes: Classes) -> Any:
    """Return a value with each instance of a subclass as the class that its stated type names, as pydantic writes it.

    Args:
        value: Any value.
        classes: The classes that its stated type is made of.
    """
    type_ = type(value)
    if type_ in {list, *_CONTAINERS}:
        return type_(narrow(part, classes) for part in value)
    if type_ is dict:
        return {key: narrow(part, classes) for key, part in value.items()}
    stated: Any = next((class_ for class_ in type_.__mro__ if classes.get(_name(class_)) is class_), None)
    if stated is None or not (isinstance(value, BaseModel) or dataclasses.is_dataclass(stated)):
        return value
    fields, extra, private = _states(value)
    if not isinstance(value, BaseModel):
        names = {field.name for field in dataclasses.fields(stated)}
    else:
        names = set(stated.model_fields)
        extra = (extra or {}) if stated.model_config.get("extra") == "allow" else None
        private = {n: p for n, p in (private or {}).items() if n in stated.__private_attributes__} or None
    kept = {name: narrow(part, classes) for name, part in (fields or {}).items() if name in names}
    return _build(stated, [kept, dict(extra or {}), dict(private or {})], [None, extra, private])


def is_same(one: Any, other: Any) -> bool:  # noqa: PLR0911 - one for each kind of value
    """Compare two values with the types of all their parts: ``1``, ``1.0`` and ``True`` differ."""
    if one is other:
        return True
    if type(one) is not type(other) or isinstance(one, enum.Enum):
        return False
    if isinstance(one, BaseModel) or dataclasses.is_dataclass(one):
        return all(is_same(state, others) for state, others in zip(_states(one), _states(other), strict=True))
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        keys = {key: key for key in other}
        return one.keys() == keys.keys() and all(
            type(key) is type(keys[key]) and is_same(part, other[key]) for key, part in one.items()
        )
    if isinstance(one, set | frozenset):
        return one == other and sorted(map(_type_name, one)) == sorted(map(_type_name, other))
    if isinstance(one, datetime.datetime) and one.tzinfo and other.tzinfo:
        # Python calls no moment of an hour that clocks repeat equal to one of another zone, not even the same.
        return bool(one.astimezone(datetime.UTC) == other.astimezone(datetime.UTC))
    return bool(one == other)


def is_alike(one: Any, other: Any) -> bool:
    """Compare the types of two values and of what they hold, whatever the values are."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_alike, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            is_alike(key, other_key) and is_alike(part, other_part)
            for (key, part), (other_key, other_part) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, set | frozenset):
        return sorted(map(_type_name, one)) == sorted(map(_type_name, other))
    return True


def _type_of_pydantic(value: Any) -> str | None:
    type_ = pathlib.Path if isinstance(value, pathlib.Path) else type(value)
    return type_.__name__ if _BY_PYDANTIC.get(type_.__name__) is type_ else None


@functools.cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_BY_PYDANTIC[name])


def _number(value: float) -> int | float:
    if not math.isfinite(value) if isinstance(value, float) else not -_LARGEST_INTEGER - 1 <= value <= _LARGEST_INTEGER:
        raise NotCarriable("holds a number that JSON has no form for")
    return value


def _write_state(state: Mapping[str, Any] | None, classes: Classes) -> JsonValue:
    return None if state is None else {name: write(part, classes) for name, part in state.items()}


def _states(value: Any) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the fields, extra fields and private attributes of a model; a dataclass has only fields."""
    if not isinstance(value, BaseModel):
        if not dataclasses.is_dataclass(value):
            raise NotCarriable(f"a {type(value).__name__} is neither a model, a dataclass, an enum nor a named tuple")
        return _attributes(value), None, None
    fields = {name: vars(value)[name] for name in type(value).model_fields if name in vars(value)}
    private = value.__pydantic_private__
    return fields, value.model_extra, None if private is None else {k: v for k, v in private.items() if _is_data(v)}


def _attributes(value: Any) -> dict[str, Any]:
    fields = {
        field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)
    }
    return fields | {name: part for name, part in getattr(value, "__dict__", {}).items() if name.isidentifier()}


def _is_data(value: Any) -> bool:
    """Return True if a private attribute is data; a lock or a client is made anew by the class."""
    return isinstance(value, _DATA) or dataclasses.is_dataclass(value)


_DATA = (str, int, float, list, dict, enum.Enum, BaseModel, datetime.timedelta, type(None), *_CONTAINERS, *_TEXTS)


def _build(class_: type, states: list[dict[str, Any]], forms: list[Any]) -> Any:
    built: Any = object.__new__(class_)
    fields, extra, private = states
    if not issubclass(class_, BaseModel):
        for name, part in fields.items():
            object.__setattr__(built, name, part)
        return built
    if forms[2] is not None:
        defaults = {name: attribute.get_default() for name, attribute in class_.__private_attributes__.items()}
        object.__setattr__(built, "__pydantic_private__", defaults | private)
    else:
        object.__setattr__(built, "__pydantic_private__", None)
    object.__setattr__(built, "__dict__", fields)
    object.__setattr__(built, "__pydantic_extra__", None if forms[1] is None else extra)
    object.__setattr__(built, "__pydantic_fields_set__", {*fields, *extra})
    return built


def _type_name(value: Any) -> str:
    return _name(type(value))


def _name(type_: type) -> str:
    return f"{type_.__module__}:{type_.__qualname__}"
