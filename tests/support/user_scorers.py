"""Scoring hooks of a user's own."""

from __future__ import annotations

import os
import threading
from typing import Any


def is_brief(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Return 1 for an answer of at most 20 characters."""
    del inputs
    return float(len(outputs["answer"]) <= 20)


def fails(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Raise, and quote what it must not."""
    raise RuntimeError(f"{inputs} {outputs}")


def first_word(inputs: dict[str, Any]) -> str:
    """Return what a user wrote as a category: there is no end of those."""
    return str(inputs["question"].split()[0])


def halts(inputs: dict[str, Any], outputs: dict[str, Any]) -> float:
    """Never return, unless HALTS is ``no``: for a worker that is killed meanwhile."""
    del inputs, outputs
    if os.environ.get("HALTS") != "no":
        threading.Event().wait()
    return 1.0
