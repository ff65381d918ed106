"""Images, audio and files as plain values: a URL or a data URL stands for DSPy's own object, which producers lack."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin

_MODULES = "dspy.adapters.types."
#: The field of DSPy's type that a bare text stands for; its ``Audio`` parses a data URL itself.
_FIELDS = {"Image": "url", "File": "file_data"}


def wrap(annotation: Any, value: Any) -> Any:
    """Return a value with each text that stands for an image or a file as the dict that DSPy's type reads."""
    if isinstance(value, str):
        field = _field(annotation)
        return value if field is None else {field: value}
    parameters = get_args(annotation)
    origin = get_origin(annotation)
    if origin in {Union, UnionType}:
        for parameter in parameters:
            wrapped = wrap(parameter, value)
            if wrapped != value:
                return wrapped
        return value
    if isinstance(value, dict) and len(parameters) == 2:  # noqa: PLR2004 - keys and values
        return {key: wrap(parameters[1], part) for key, part in value.items()}
    if isinstance(value, list) and parameters:
        of_each = parameters if origin is tuple and Ellipsis not in parameters else parameters[:1] * len(value)
        return [wrap(part_type, part) for part_type, part in zip(of_each, value, strict=False)]
    return value


def _field(annotation: Any) -> str | None:
    """Return the field that a text stands for; None if the type accepts text itself."""
    options = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    if str in options:
        return None
    names = (option.__name__ for option in options if getattr(option, "__module__", "").startswith(_MODULES))
    return next((_FIELDS[name] for name in names if name in _FIELDS), None)
