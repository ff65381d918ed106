"""Differences between the variants of a program, as each is served."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspyq.config.privacy import HIDDEN
from dspyq.config.secrets import scrub, secrets_in

if TYPE_CHECKING:
    from dspyq.config.programs import Program

#: Digits of a state's hash that distinguish files of one name.
_HASH_DIGITS = 8


def find_differences(program: Program) -> dict[str, dict[str, Any]]:
    """Return the settings in which variants differ, by key of the file: the value that each variant has.

    Secrets among request parameters are hidden.

    Args:
        program: The program, with its signature known.
    """
    settings = {name: _settings_of(program.as_served(name), name) for name in program.variants}
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    by_key = {key: {name: values.get(key) for name, values in settings.items()} for key in keys}
    return {
        key: {name: _shown(key.rpartition(".")[2], value) for name, value in values.items()}
        for key, values in by_key.items()
        if any(value != next(iter(values.values())) for value in values.values())
    }


def find_equals(program: Program) -> list[tuple[str, ...]]:
    """Return the groups of variants that do not differ, so that they share their answers."""
    groups: dict[str, tuple[str, ...]] = {}
    for name, fingerprint in program.fingerprints.items():
        groups[fingerprint] = (*groups.get(fingerprint, ()), name)
    return [group for group in groups.values() if len(group) > 1]


def _settings_of(served: Program, variant: str) -> dict[str, Any]:
    model = served.variants[variant].model
    return {
        "model": model.name,
        "signature": str(served.signature),
        "instructions": served.instructions,
        "class": served.class_path,
        "module": None if served.class_path else served.module,
        "state": _state(served.state, served.state_sha256),
        "adapter": served.adapter,
        "version": served.version,
        "temperature": model.temperature,
        "max_tokens": model.max_tokens,
        **{f"parameters.{name}": value for name, value in model.parameters.items()},
    }


def _state(path: Path | None, sha256: str | None) -> str | None:
    return None if path is None else f"{path.name} ({(sha256 or '')[:_HASH_DIGITS]})"


def _shown(name: str, value: Any) -> Any:
    if any(secrets_in({name: value})):
        return HIDDEN
    match value:
        case str():
            return scrub(value)
        case Mapping():
            return {key: _shown(str(key), part) for key, part in value.items()}
        case list():
            return [_shown(name, part) for part in value]
        case _:
            return value
