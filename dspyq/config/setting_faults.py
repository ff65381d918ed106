"""Faults of a configuration, as the lines that users read."""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from dspyq.config import sections
from dspyq.config.batches import ScheduledBatch
from dspyq.config.forms import words_of
from dspyq.config.models import Model
from dspyq.config.programs import Program
from dspyq.config.variants import Variant

#: These may hold a secret, by mistake too, so that their values are not shown.
_PRIVATE = frozenset({"api_base", "api_key_env", "endpoint", "loki_authorization_env", "parameters", "sha256"})
#: Filled in from the tables around them, never written in the file.
_DERIVED = {
    Model: ("name",),
    Variant: ("name", "queue", "state_sha256"),
    Program: ("name", "dspy_version", "state_sha256"),
    ScheduledBatch: ("name",),
}


def is_reported_elsewhere(details: ErrorDetails) -> bool:
    """Return whether another line states the fault: that of the model itself, or a link that fails."""
    location = details["loc"]
    is_own = len(location) > 3 and location[0] == "programs" and location[2] == "models"  # noqa: PLR2004 - programs.p.models.path
    is_variant = len(location) > 4 and location[0] == "programs" and location[2] == "variants"  # noqa: PLR2004 - programs.p.variants.v.model
    return is_own or (is_variant and location[4] == "model" and details["type"] != "missing")


def describe_fault(details: ErrorDetails, root: type[BaseModel]) -> str:
    """Return the line about a fault: its place, and the fault itself, with the value where that cannot be a secret.

    Args:
        details: The fault, as pydantic states it.
        root: The model of the whole configuration.
    """
    location = [str(part) for part in details["loc"] if part != "[key]"]
    where = ".".join(location) or "configuration"
    match details["type"]:
        case "extra_forbidden":
            unknown = f"unknown key{nearest_hint(location[-1], _known_keys(location[:-1], root))}"
            return f"{where}: {sections.REPLACED.get(where) or unknown}"
        case "missing":
            return f"{where}: missing"
        case "value_error":
            return f"{where}: {details['msg'].removeprefix('Value error, ')}"
        case "string_pattern_mismatch":
            return f"{where}: {words_of(details['ctx']['pattern'])}{_value(details, location)}"
        case _:
            message = details["msg"][0].lower() + details["msg"][1:]
            return f"{where}: {message}{_value(details, location)}"


def _value(details: ErrorDetails, location: list[str]) -> str:
    is_private = any(part in _PRIVATE or part.endswith(("_url", "_password")) for part in location)
    return "" if is_private else f", not {details['input']!r}"


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like this one, or nothing where none is."""
    import difflib  # noqa: PLC0415 - only a faulty file needs it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _known_keys(location: list[str], root: type[BaseModel]) -> list[str]:
    annotation: Any = root
    for part in location:
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            field = next((f for n, f in annotation.model_fields.items() if part in (n, f.alias)), None)
            annotation = field.annotation if field else None
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next((a for a in get_args(annotation) if a is not type(None)), None)
        if annotation is None:
            return []
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    derived = _DERIVED.get(annotation, ())
    return [field.alias or name for name, field in annotation.model_fields.items() if name not in derived]
