"""The rows of the table: what was measured, beside what, and what it had to reach."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich.table import Table

#: A round trip more in a thousand calls is the background's: a heartbeat, a pool's new connection.
_ROUND_TRIP_TOLERANCE = 0.05


class Skipped(Exception):
    """A benchmark cannot run here; its text is the reason."""


@dataclass(frozen=True)
class Target:
    """A value that a row must reach.

    Attributes:
        of: Whether the limit is for the ratio or for our own value.
        bound: Which side of the limit is good; ``within``: between it and its reciprocal.
        limit: The limit.
        round_trips: The Redis round trips a call may cost; not counted where left out.
    """

    of: Literal["ratio", "value"]
    bound: Literal["at most", "at least", "within"]
    limit: float
    round_trips: int | None = None

    def __str__(self) -> str:
        """Return it as the table says it."""
        sign = {"at most": "≤", "at least": "≥", "within": "within"}[self.bound]
        limit = f"{sign} {self.limit:.2f} ×" if self.of == "ratio" else f"{sign} {self.limit:g}"
        return limit if self.round_trips is None else f"{limit}, {self.round_trips} rt"

    def is_met_by(self, row: Row) -> bool:
        """Return True if a row reaches it."""
        value = row.ratio if self.of == "ratio" else row.ours
        if value is None or not self._has(value):
            return False
        if self.round_trips is None:
            return True
        return row.round_trips is not None and row.round_trips <= self.round_trips + _ROUND_TRIP_TOLERANCE

    def _has(self, value: float) -> bool:
        if self.bound == "at most":
            return value <= self.limit
        return value >= self.limit if self.bound == "at least" else 1 / self.limit <= value <= self.limit


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        path: The way through dspyq.
        measured: What was measured on it.
        unit: Of both values: ``µs``, ``ms``, ``/s``, ``MB``, or what is counted.
        ours: What dspyq took or reached: a median where it was repeated.
        other: What it is compared with.
        theirs: What that took or reached.
        ratio: Ours over theirs: the median over the rounds, so not always the quotient of the two medians.
        target: What it must reach; None for a row that is there to compare.
        round_trips: The Redis round trips of one call.
        note: How it came about, where a reader would wonder.
        points: Pairs of a size and the value there, in the row's unit, where it was measured at several sizes.
    """

    path: str
    measured: str
    unit: str
    ours: float
    other: str = ""
    theirs: float | None = None
    ratio: float | None = None
    target: Target | None = None
    round_trips: float | None = None
    note: str = ""
    points: tuple[tuple[int, float], ...] = ()

    @property
    def is_met(self) -> bool | None:
        """True if the target is met; None where there is none."""
        return None if self.target is None else self.target.is_met_by(self)

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self) | {"required": str(self.target) if self.target else None, "is_met": self.is_met}


def build_table(rows: list[Row]) -> Table:
    """Return the rows as they are printed."""
    table = Table(title="dspyq beside others, in one run", title_justify="left", expand=False)
    table.add_column("path")
    table.add_column("measured")
    table.add_column("ours", justify="right")
    table.add_column("theirs", justify="right")
    table.add_column("beside")
    table.add_column("ratio", justify="right")
    table.add_column("required", justify="right")
    table.add_column("met", justify="center")
    table.add_column("round trips", justify="right")
    previous = None
    for row in rows:
        if previous is not None and row.path != previous:
            table.add_section()
        table.add_row(*_cells(row, is_first=row.path != previous))
        previous = row.path
    return table


def _cells(row: Row, *, is_first: bool) -> list[str]:
    mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: ""}[row.is_met]
    return [
        row.path if is_first else "",
        row.measured,
        _format(row.ours, row.unit),
        "" if row.theirs is None else _format(row.theirs, row.unit),
        row.other,
        "" if row.ratio is None else f"{row.ratio:.2f} ×",
        str(row.target or ""),
        mark,
        "" if row.round_trips is None else f"{row.round_trips:.1f}",
    ]


def _format(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{'' if unit.startswith('/') else ' '}{unit}"
