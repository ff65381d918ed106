"""Types whose values JSON cannot carry, found in pydantic's core schema before any value exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pydantic import SecretBytes, SecretStr, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from dspyq.config.exact import schema_parts

#: pydantic's name of a schema, and the user's word for it.
_NOT_DATA = {"callable": "a callable", "generator": "an iterator", "is-subclass": "a class"}
#: The class that pydantic names in "Unable to generate pydantic-core schema for <class 'a.B'>. Set …".
_UNBUILT = re.compile(r"schema for (?:<class ')?(?:\w+\.)*(\w+)")


def find_uncarriable_parts(adapter: TypeAdapter[Any], *, is_output: bool) -> Iterator[str]:
    """Yield the parts of a type that JSON cannot carry.

    Args:
        adapter: The type.
        is_output: Whether a model writes such values: DSPy then states its JSON schema in the prompt.
    """
    faults = list(dict.fromkeys(_faults(adapter.core_schema)))
    yield from faults
    if is_output and not faults:
        try:
            adapter.json_schema()
        except PydanticUserError as error:
            yield f"no model can write it: {error.message}"


def explain_unbuilt(error: PydanticSchemaGenerationError) -> str:
    """Return the reason why pydantic cannot build a type, and what to state instead.

    Its own advice, ``arbitrary_types_allowed``, leads to a type that JSON cannot carry.
    """
    found = _UNBUILT.search(error.message)
    return (
        f"{found[1] if found else 'a part of it'} is no pydantic model, dataclass, enum or named tuple, so pydantic "
        "cannot build it; state one of those, or leave it out of the type"
    )


def _faults(schema: Any) -> Iterator[str]:
    serialized = {id(part) for owner in schema_parts(schema) if "serialization" in owner for part in _inside(owner)}
    for part in schema_parts(schema):
        kind, class_ = part["type"], part.get("cls")
        if kind in _NOT_DATA:
            yield f"{_NOT_DATA[kind]} cannot be carried as JSON; leave it out of the type"
        elif isinstance(class_, type) and issubclass(class_, SecretStr | SecretBytes):
            yield f"{class_.__name__} hides its value from JSON; state str, or keep secrets out of predictions"
        elif kind == "is-instance" and id(part) not in serialized:
            name = getattr(class_, "__name__", class_)
            yield f"{name} is no pydantic model, dataclass, enum or named tuple, so JSON cannot carry its values"


def _inside(owner: Any) -> Iterator[Any]:
    return (part for part in schema_parts(owner))
