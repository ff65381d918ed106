"""A configuration for the duration of a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from dspyq.config.settings import get_settings, load_settings
from dspyq.core.runtime import DEFAULT
from dspyq.core.scratch import scratch_folder

#: A file, the text of one, or its tables.
Configuration: TypeAlias = "Path | str | Mapping[str, Any]"


@contextmanager
def with_configuration(configuration: Configuration | None) -> Iterator[None]:
    """Use another configuration within a block, in all threads; None leaves this process's."""
    if configuration is None:
        yield
        return
    with scratch_folder("test") as folder:
        path = configuration if isinstance(configuration, Path) else folder / "dspyq.toml"
        if isinstance(configuration, str):
            path.write_text(configuration, encoding="utf-8")
        elif isinstance(configuration, Mapping):
            path.write_text(_to_toml(configuration), encoding="utf-8")
        settings = load_settings(path)
    with DEFAULT.emptied():  # of what belongs to the other configuration, clients included
        DEFAULT.put(get_settings, settings)
        yield


def _to_toml(document: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(name)} = {_value(value)}\n" for name, value in document.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_value(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON's escapes are TOML's, but for half a surrogate pair, which JSON writes of a character beyond the basic plane.
    return json.dumps(value) if isinstance(value, (bool, int, float)) else json.dumps(str(value), ensure_ascii=False)
