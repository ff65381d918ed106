"""The size of a run of the faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TypeVar

_Size = TypeVar("_Size", int, float)


@dataclass(frozen=True)
class Scale:
    """The form of a run, short or long, and its random choices.

    Attributes:
        seed: Decides all of them.
        is_quick: Whether it is the short one.
    """

    seed: int = 1
    is_quick: bool = False
    random: random.Random = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", random.Random(self.seed))  # noqa: S311 - no secret

    def pick(self, *, quick: _Size, full: _Size) -> _Size:
        """Return the size for this run."""
        return quick if self.is_quick else full
