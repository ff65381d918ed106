"""Load a program's state saved by an optimizer, with a check; DSPy would silently load another program's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspyq.config.programs import Program
from dspyq.errors import ConfigurationError

#: The entry beside the predictors, with the versions that saved it.
_METADATA = "metadata"


def read_state(program: Program, path: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """Return the saved state of each predictor, without the model it was optimized on.

    Args:
        program: The program whose state it is.
        path: The file that ``program.save("….json")`` wrote.
        fresh: The state of each of the program's predictors before it is loaded.

    Raises:
        ConfigurationError: If the file is unreadable, changed since the settings were read, or another program's.
    """
    setting = program.setting("state")
    try:
        content = path.read_bytes()
        state = json.loads(content)
    except OSError as error:
        raise ConfigurationError(f"{setting}: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{setting}: {path} is not the JSON that program.save writes: {error}") from error
    if hashlib.sha256(content).hexdigest() != program.state_sha256:
        raise ConfigurationError(f"{setting}: {path} changed after the settings were read; start again")
    saved = _by_predictor(state)
    if differences := "; ".join(_differences(fresh, saved)):
        raise ConfigurationError(f"{setting}: {path} is of another program{_as_served(program)}: {differences}")
    return {name: {**predictor, "lm": None} for name, predictor in saved.items()}


def _as_served(program: Program) -> str:
    """Return which variant's program it is, and what to do, where the variant has the state from its program."""
    variant = program.variant_served
    if variant is None or program.replaces("state"):
        return ""
    table = f"programs.{program.name}.variants.{variant}"
    return f' than that of variant {variant} (state = "" in {table} leaves it out there)'


def _by_predictor(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict):
        return {}
    saved = {name: value for name, value in state.items() if name != _METADATA}
    # A program that is itself a predictor is saved without DSPy's name for it.
    return {"self": saved} if isinstance(saved.get("demos"), list) else saved


def _differences(fresh: dict[str, Any], saved: dict[str, Any]) -> Iterator[str]:
    if not fresh:
        yield "the program has no predictors, and so no state: leave it out"
        return
    if saved.keys() != fresh.keys():
        yield f"it has the predictors {', '.join(sorted(saved)) or '(none)'}, the program {', '.join(sorted(fresh))}"
        return
    for name, predictor in fresh.items():
        if not isinstance(saved[name], dict):
            yield f"its {name} is no predictor"
        elif "signature" in predictor and not _has_fields(saved[name], predictor["signature"]["fields"]):
            yield f"the predictor {name} has other fields"


def _has_fields(saved: dict[str, Any], fields: list[dict[str, str]]) -> bool:
    """Return True if a saved predictor has these fields.

    It holds no field names, only a prefix and a description of each; optimizers rewrite one of the two, never both.
    """
    match saved:
        case {"signature": {"instructions": str(), "fields": [*found]}} if len(found) == len(fields):
            pairs = zip(fields, found, strict=True)
            return all(_is_same_field(ours, theirs) for ours, theirs in pairs)
        case _:
            return False


def _is_same_field(ours: dict[str, str], theirs: Any) -> bool:
    return isinstance(theirs, dict) and any(theirs.get(key) == text for key, text in ours.items())
