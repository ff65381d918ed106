"""A program's scoring hook that asks nobody."""

from __future__ import annotations

from typing import Any


def length(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Score an answer by its length."""
    del inputs
    return min(1.0, len(outputs["answer"]) / 100)
