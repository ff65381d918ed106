"""The figures of the table, and the bounds that some must keep."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple


class Bound(NamedTuple):
    """A limit of a figure."""

    sign: Literal["≤", "≥"]
    limit: float
    unit: str = "%"

    def is_met_by(self, value: float) -> bool:
        """Return True if a value keeps it."""
        return value <= self.limit if self.sign == "≤" else value >= self.limit

    def __str__(self) -> str:
        """Return it as the table shows it."""
        return f"{self.sign} {shown(self.limit, self.unit)}"


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        world: What was simulated.
        measured: What was measured in it.
        value: The figure; a share where its unit is ``%``.
        bound: What it must keep; None for a figure that is there to compare.
        of: Simulated experiments.
        unit: Of the figure, where it has no bound.
        beside: A second figure, of the same unit.
    """

    world: str
    measured: str
    value: float
    bound: Bound | None = None
    of: int | None = None
    unit: str = "%"
    beside: float | None = None

    @property
    def is_met(self) -> bool | None:
        """True if the bound is kept; None where there is none."""
        return None if self.bound is None else self.bound.is_met_by(self.value)

    def cells(self) -> list[str]:
        """Return the cells after the world's."""
        unit = self.bound.unit if self.bound else self.unit
        figures = [shown(each, unit) for each in (self.value, self.beside) if each is not None]
        mark = {True: "✓", False: "✗", None: ""}[self.is_met]
        return [self.measured, ", ".join(figures), str(self.bound or ""), mark, f"{self.of:,}" if self.of else ""]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        value = self.value if math.isfinite(self.value) else None
        return asdict(self) | {"value": value, "bound": str(self.bound or "") or None, "is_met": self.is_met}


def shown(value: float, unit: str) -> str:
    """Return a figure with its unit."""
    if unit == "%":
        return f"{100 * value:.2f} %" if value < 0.01 else f"{100 * value:.1f} %"
    if unit == "×":
        return f"{value:.2f} ×"
    return f"{value:,.{0 if value >= 100 or value == int(value) else 1}f} {unit}".strip()
