"""The depth of nested values."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

#: Levels of nesting allowed in inputs and outputs, including their own dict; the limit of the JSON parsers in use.
MOST_DEPTH = 200

_CONTAINERS = (dict, list, tuple)


def is_too_deep(value: Any) -> bool:
    """Return True if dicts, lists and tuples nest deeper than ``MOST_DEPTH``, or contain themselves."""
    level: Iterable[Any] = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(MOST_DEPTH):
        # By identity: a part that occurs several times, or in itself, is followed once on each level.
        inner = {
            id(part): part
            for outer in level
            for part in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(part, _CONTAINERS)
        }
        if not inner:
            return False
        level = inner.values()
    return True


def has_deep_objects(value: Any) -> bool:
    """Return True if containers, models and dataclasses nest deeper than ``MOST_DEPTH``.

    Ask before pydantic writes a value. At its own limit of some 250 levels, pydantic before 2.14.2 tries each member of
    a union again in each level and formats the value for each attempt: a deep value takes minutes.

    Each part counts where it occurs first. A cycle alone does not make a value deep: serializers may leave out the
    reference back, as from a child to its parent.
    """
    level, seen = [value], {id(value)}
    for _ in range(MOST_DEPTH):
        inner = {id(part): part for outer in level for part in _object_parts(outer) if _has_parts(part)}
        level = [part for key, part in inner.items() if key not in seen]
        if not level:
            return False
        seen.update(inner)
    return True


def _parts(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _has_parts(value: Any) -> bool:
    # A class can have dataclass fields too.
    return isinstance(value, (dict, list, tuple, set, frozenset, deque, BaseModel)) or (
        dataclasses.is_dataclass(value) and not isinstance(value, type)
    )


def _object_parts(value: Any) -> Any:
    """Return what pydantic writes of a value: the fields of a model or dataclass that are not excluded."""
    if isinstance(value, BaseModel):
        names = list(type(value).__pydantic_fields__)
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    else:
        return _parts(value) if _has_parts(value) else ()
    stated = getattr(type(value), "__pydantic_fields__", {})
    written = [getattr(value, name, None) for name in names if not (name in stated and stated[name].exclude)]
    return [*written, *(getattr(value, "__pydantic_extra__", None) or {}).values()]
