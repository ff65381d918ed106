"""Comparison of two variants row by row: agreement, and differences in scores, cost and duration.

Rows of one document or user, and rows that ask the same question, depend on each other, and a report is read while rows
land. So each interval is clustered, and holds at every look (``dspyq.experiments.mixture.paired_radius``).
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from dspyq.batch.files.rows import CLUSTERS, cluster_of
from dspyq.experiments.burn_in import LEAST_EFFECTIVE_CLUSTERS, LEAST_ROWS
from dspyq.experiments.effects import paired_effect
from dspyq.experiments.mixture import paired_radius
from dspyq.experiments.sums import ClusterSums

#: The chance that an interval ever leaves out the true figure.
_ALPHA = 0.05
_HASH_BYTES = 8


@dataclass(frozen=True)
class LastingInterval:
    """An interval that holds the true figure at every look, 95 times in 100.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Measurement:
    """A figure measured on some rows.

    Attributes:
        rows: Number of rows.
        clusters: Number of their clusters: documents, users or questions.
        value: The figure.
        interval: Its interval; None where too few rows are independent, or all are equal.
    """

    rows: int
    clusters: int
    value: float
    interval: LastingInterval | None


@dataclass(frozen=True)
class Comparison:
    """A variant beside the control, on the rows that both answered.

    Attributes:
        control: The variant that others are compared with.
        variant: The other one.
        rows: Rows that both answered.
        agreement: Share of equal answers by output; texts are compared without case and spaces.
        score_differences: Extra score, by the scorer's import path, over rows that it scored for both.
        cost_difference_usd: Extra cost of a row, over rows that both ran for this batch; None if there are none.
        duration_difference_seconds: Extra duration of a run.
    """

    control: str
    variant: str
    rows: int
    agreement: dict[str, Measurement]
    score_differences: dict[str, Measurement]
    cost_difference_usd: Measurement | None
    duration_difference_seconds: Measurement | None


class Pairs:
    """Answers of each row by variant, in a temporary file that ends with this process.

    Args:
        clusters: The number of each row's cluster, where the batch named a field for that; other rows are clustered by
            the control's question.
    """

    def __init__(self, clusters: Iterable[tuple[int, int]] = ()) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768;"
            "CREATE TABLE answers (row INTEGER, variant TEXT, question INTEGER, outputs BLOB, scores BLOB, "
            "cost_usd REAL, duration_seconds REAL, PRIMARY KEY (row, variant)) WITHOUT ROWID;"
            "CREATE TABLE clusters (row INTEGER PRIMARY KEY, cluster INTEGER); BEGIN"
        )
        self._database.executemany("INSERT INTO clusters VALUES (?, ?)", clusters)

    def add(self, outputs: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        """Add an answer."""
        cost_usd = None if metadata["cached"] else metadata["cost_usd"]
        said = orjson.dumps({name: _digest(value) for name, value in outputs.items()})
        question = cluster_of(metadata.get("input_hash", metadata["row"]))
        scores = orjson.dumps(metadata.get("scores") or {})
        answer = (metadata["row"], metadata["variant"], question, said, scores, cost_usd, metadata["duration_seconds"])
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", answer)

    def compare(self, control: str, variant: str) -> Comparison:
        """Compare a variant with the control."""
        same: defaultdict[str, _Clustered] = defaultdict(_Clustered)
        scores: defaultdict[str, _Clustered] = defaultdict(_Clustered)
        costs, durations, rows = _Clustered(), _Clustered(), 0
        for cluster, *of_both in self._pairs(control, variant):
            mine, theirs, my_scores, their_scores, my_cost, their_cost, my_duration, their_duration = of_both
            rows += 1
            for name, first, second in _in_both(mine, theirs):
                same[name].add(cluster, float(first == second))
            for name, first, second in _in_both(my_scores, their_scores):
                if first is not None and second is not None:
                    scores[name].add(cluster, second - first)
            durations.add(cluster, their_duration - my_duration)
            if my_cost is not None and their_cost is not None:
                costs.add(cluster, their_cost - my_cost)
        return Comparison(
            control,
            variant,
            rows,
            agreement=_measured(same, least=0.0, most=1.0),
            score_differences=_measured(scores),
            cost_difference_usd=costs.measured(),
            duration_difference_seconds=durations.measured(),
        )

    def _pairs(self, control: str, variant: str) -> Iterator[tuple[Any, ...]]:
        return self._database.execute(
            "SELECT coalesce(clusters.cluster, a.question), a.outputs, b.outputs, a.scores, b.scores, a.cost_usd, "
            "b.cost_usd, a.duration_seconds, b.duration_seconds FROM answers AS a JOIN answers AS b ON a.row = b.row "
            "LEFT JOIN clusters ON clusters.row = a.row WHERE a.variant = ? AND b.variant = ?",
            (control, variant),
        )


@dataclass
class _Clustered:
    """Sums of figures of rows by cluster."""

    rows: int = 0
    totals: list[float] = field(default_factory=lambda: [0.0] * CLUSTERS)
    numbers: list[float] = field(default_factory=lambda: [0.0] * CLUSTERS)

    def add(self, cluster: int, value: float) -> None:
        """Add a row."""
        self.rows += 1
        self.totals[cluster] += value
        self.numbers[cluster] += 1

    def measured(self, least: float | None = None, most: float | None = None) -> Measurement | None:
        """Return their mean, within what it can be; None without a row."""
        effect = paired_effect(ClusterSums(tuple(self.totals), tuple(self.numbers)))
        if effect is None:
            return None
        clusters = sum(map(bool, self.numbers))
        interval = None
        if self.rows >= LEAST_ROWS and effect.effective_clusters >= LEAST_EFFECTIVE_CLUSTERS:
            half = paired_radius(effect.variance, clusters, _ALPHA)
            low, high = effect.value - half, effect.value + half
            interval = LastingInterval(
                low if least is None else max(least, low), high if most is None else min(most, high)
            )
        return Measurement(self.rows, clusters, effect.value, interval)


def _measured(
    found: Mapping[str, _Clustered], *, least: float | None = None, most: float | None = None
) -> dict[str, Measurement]:
    measured = ((name, found[name].measured(least, most)) for name in sorted(found))
    return {name: measurement for name, measurement in measured if measurement is not None}


def _in_both(mine: bytes, theirs: bytes) -> Iterator[tuple[str, Any, Any]]:
    first, second = orjson.loads(mine), orjson.loads(theirs)
    return ((name, first[name], second[name]) for name in first.keys() & second.keys())


def _digest(value: Any) -> str:
    plain = " ".join(value.casefold().split()) if isinstance(value, str) else value
    return blake2b(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS), digest_size=_HASH_BYTES).hexdigest()
