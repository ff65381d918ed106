"""One order for members of sets in JSON: Python's differs by process, but a question must have one hash everywhere."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from pydantic import BaseModel, JsonValue
from pydantic_core import to_jsonable_python

from dspyq.core.depth import has_deep_objects


def jsonable(value: Any) -> JsonValue:
    """Return a value of any type as the nearest JSON, its sets in order.

    Raises:
        RecursionError: If it nests deeper than ``MOST_DEPTH`` levels.
    """
    if has_deep_objects(value):
        raise RecursionError
    return order_sets(value, to_jsonable_python(value))


def in_order(members: Iterable[Any]) -> list[Any]:
    """Return the members of a set, as JSON values, in an order that depends on them alone."""
    return sorted(members, key=lambda member: orjson.dumps(member, option=orjson.OPT_SORT_KEYS))


def order_sets(value: Any, plain: JsonValue) -> JsonValue:
    """Return the JSON of a value with the members of each set sorted.

    Args:
        value: The value.
        plain: Its JSON; a part that differs in shape from the value stays as it is.
    """
    if isinstance(value, BaseModel) and "root" in vars(value):
        return order_sets(vars(value)["root"], plain)
    if isinstance(plain, list):
        if not isinstance(value, set | frozenset | list | tuple | deque) or len(value) != len(plain):
            return plain
        members = [order_sets(part, written) for part, written in zip(value, plain, strict=True)]
        return in_order(members) if isinstance(value, set | frozenset) else members
    if isinstance(plain, dict):
        parts = dict(_parts(value, plain))
        return {key: order_sets(parts[key], written) if key in parts else written for key, written in plain.items()}
    return plain


def _parts(value: Any, plain: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value by their keys in JSON."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            for key in (name, field.serialization_alias, field.alias):
                if key is not None and key in plain and name in vars(value):
                    yield key, vars(value)[name]
        yield from (value.model_extra or {}).items()
    elif dataclasses.is_dataclass(value):
        yield from ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif isinstance(value, dict) and len(value) == len(plain):
        yield from zip(plain, value.values(), strict=True)
