"""Configuration files for tests: one program ``qa`` on the endpoint, and what a test changes of it."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The name of the variable that holds the model's key: not ``DSPYQ_...``, where only settings may live.
API_KEY_VARIABLE = "MODEL_API_KEY"
API_KEY = "a-key-that-must-not-appear-anywhere"
#: Prices that make a call cost something, and each side another amount.
INPUT_USD_PER_MILLION_TOKENS = 1.0
OUTPUT_USD_PER_MILLION_TOKENS = 2.0


def default_document(endpoint_url: str) -> dict[str, Any]:
    """Return the default configuration: program ``qa``, its control alone, leases of 3 s, 8 threads."""
    model = {
        "model": "openai/control",
        "api_base": endpoint_url,
        "api_key_env": API_KEY_VARIABLE,
        "timeout_seconds": 10,
        "input_usd_per_million_tokens": INPUT_USD_PER_MILLION_TOKENS,
        "output_usd_per_million_tokens": OUTPUT_USD_PER_MILLION_TOKENS,
    }
    return {
        "models": {"control": model},
        "programs": {"qa": {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}},
        # Short, so that a test of a dead worker is short; long enough for a beat on a busy machine.
        "delivery": {"visibility_timeout_seconds": 3},
        # Remote control is off unless a configuration sets it; most tests that use it use this one.
        "workers": {"concurrency": 8, "remote_control": True},
    }


def with_challenger(document: dict[str, Any], weight: float = 0.5) -> dict[str, Any]:
    """Return the configuration with a second variant of ``qa``, ``challenger``, on a model of its own."""
    model = document["models"]["control"] | {"model": "openai/challenger"}
    variants = {
        "control": {"model": "control", "weight": 1 - weight},
        "challenger": {"model": "challenger", "weight": weight},
    }
    return merged(document, {"models": {"challenger": model}, "programs": {"qa": {"variants": variants}}})


def merged(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with changes merged table by table; None removes a key."""
    result = copy.deepcopy(dict(document))
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            table = result.get(key)
            result[key] = merged(table if isinstance(table, Mapping) else {}, value)
        else:
            result[key] = value
    return result


def write_settings(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a configuration file and return its path."""
    path.write_text(to_toml(document), encoding="utf-8")
    return path


def to_toml(document: Mapping[str, Any], prefix: str = "") -> str:
    """Return a document as TOML."""
    plain = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    lines = [f"[{prefix}]"] if prefix and (plain or not document) else []
    lines += [f"{_key(key)} = {_toml_value(value)}" for key, value in plain.items()]
    parts = ["\n".join(lines)] if lines else []
    for key, table in document.items():
        if isinstance(table, Mapping):
            parts.append(to_toml(table, f"{prefix}.{_key(key)}".removeprefix(".")))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def environment(settings_path: Path, redis_url: str | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the whole environment of a process under test: this one's without its settings, and those given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DSPYQ_")}
    given = {"DSPYQ_CONFIG": str(settings_path), API_KEY_VARIABLE: API_KEY, "PYTHONUNBUFFERED": "1"}
    if redis_url:
        given["DSPYQ_REDIS_URL"] = redis_url
    return inherited | given | dict(extra or {})


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml_value(element) for element in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {_toml_value(each)}' for key, each in value.items())}}}"
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    # JSON's escapes are TOML's, but for characters beyond the basic plane.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
