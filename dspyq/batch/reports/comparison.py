"""Two variants row by row: how often they agree, and what the second costs and takes more than the first."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

_NORMAL_95 = 1.96
_HASH_BYTES = 8


@dataclass(frozen=True)
class Measured:
    """A figure measured on some rows, and the interval that holds the true one 95 times in 100.

    Attributes:
        rows: How many rows.
        value: The figure.
        low: The interval's lower end.
        high: Its upper end.
    """

    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A variant beside the control, on the rows that both answered.

    Attributes:
        control: The variant that others are held against.
        variant: The other one.
        rows: Rows that both answered.
        agreement: By output, how often both say the same; in texts, case and spaces do not count.
        cost_difference_usd: What a row costs more, where both ran for this batch; None where none did.
        duration_difference_seconds: How much longer a run takes.
    """

    control: str
    variant: str
    rows: int
    agreement: dict[str, Measured]
    cost_difference_usd: Measured | None
    duration_difference_seconds: Measured | None


class Pairs:
    """The answers of each row by variant, kept in a file that is gone with this process."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;"
            "CREATE TABLE answers (row INTEGER, variant TEXT, outputs BLOB, cost_usd REAL, duration_seconds REAL, "
            "PRIMARY KEY (row, variant)) WITHOUT ROWID; BEGIN"
        )

    def add(self, outputs: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Add an answer."""
        cost_usd = None if metadata["cached"] else metadata["cost_usd"]
        said = orjson.dumps({name: _digest(value) for name, value in outputs.items()})
        row = (metadata["row"], metadata["variant"], said, cost_usd, metadata["duration_seconds"])
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)

    def compare(self, control: str, variant: str) -> Comparison:
        """Return what a variant is beside the control."""
        same: Counter[str] = Counter()
        both: Counter[str] = Counter()
        costs, durations, rows = _Differences(), _Differences(), 0
        for mine, theirs, my_cost, their_cost, my_duration, their_duration in self._pairs(control, variant):
            rows += 1
            first, second = orjson.loads(mine), orjson.loads(theirs)
            for name in first.keys() & second.keys():
                both[name] += 1
                same[name] += first[name] == second[name]
            durations.add(their_duration - my_duration)
            if my_cost is not None and their_cost is not None:
                costs.add(their_cost - my_cost)
        agreement = {name: share_of(same[name], number) for name, number in sorted(both.items())}
        return Comparison(control, variant, rows, agreement, costs.measured(), durations.measured())

    def _pairs(self, control: str, variant: str) -> Iterator[tuple[Any, ...]]:
        return self._database.execute(
            "SELECT a.outputs, b.outputs, a.cost_usd, b.cost_usd, a.duration_seconds, b.duration_seconds "
            "FROM answers AS a JOIN answers AS b ON a.row = b.row WHERE a.variant = ? AND b.variant = ?",
            (control, variant),
        )


def share_of(number: int, total: int) -> Measured:
    """Return a share, with Wilson's interval, which also holds near nothing and near all."""
    share, square = number / total, _NORMAL_95**2 / total
    middle = (share + square / 2) / (1 + square)
    half = _NORMAL_95 / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return Measured(total, share, max(0.0, middle - half), min(1.0, middle + half))


@dataclass
class _Differences:
    """Differences of pairs, added up."""

    number: int = 0
    mean: float = 0.0
    squares: float = field(default=0.0)

    def add(self, value: float) -> None:
        """Add one, by Welford's way, which loses no digits."""
        self.number += 1
        before = value - self.mean
        self.mean += before / self.number
        self.squares += before * (value - self.mean)

    def measured(self) -> Measured | None:
        """Return their mean."""
        if not self.number:
            return None
        deviation = math.sqrt(self.squares / (self.number - 1)) if self.number > 1 else math.inf
        half = _NORMAL_95 * deviation / math.sqrt(self.number)
        return Measured(self.number, self.mean, self.mean - half, self.mean + half)


def _digest(value: Any) -> str:
    plain = " ".join(value.casefold().split()) if isinstance(value, str) else value
    return blake2b(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), digest_size=_HASH_BYTES).hexdigest()
