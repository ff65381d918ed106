"""Programs and types of a user's own; the types load without DSPy, as a producer needs them to."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel


class Verdict(BaseModel):
    """A pydantic model."""

    label: str
    confidence: float


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: int


class Color(Enum):
    """An enum."""

    RED = "red"
    BLUE = "blue"


TYPED_OUTPUTS = {
    "label": "a",
    "tags": ["x", "ü"],
    "scores": {"one": 1.0, "half": 0.5},
    "day": datetime.date(2026, 11, 24),
    "verdict": Verdict(label="good", confidence=0.5),
    "point": Point(1, 2),
    "color": Color.BLUE,
    "maybe": None,
}


def __getattr__(name: str) -> Any:
    """Load the programs only where DSPy is wanted: in workers."""
    from tests.support import dspy_programs

    return getattr(dspy_programs, name)
