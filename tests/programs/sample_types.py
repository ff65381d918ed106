"""Types that the tests' signatures name by their dotted path."""

from __future__ import annotations

import datetime
import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, field_validator


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = "cross"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Corner(enum.Enum):
    ORIGIN = (0, 0)


@dataclass
class Span:
    start: int
    end: int
    on: datetime.date | None = None


class Verdict(BaseModel):
    label: str
    score: float
    mood: Mood = Mood.CALM
    price: Decimal = Decimal(0)
    spans: list[Span] = []


class Picky(BaseModel):
    value: str

    @field_validator("value", mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if value == "never":
            raise RuntimeError("not even a ValueError")
        return value


class NotData:
    """No type that pydantic can validate."""

    def __init__(self, anything: object) -> None:
        self.anything = anything
