"""The outcome of a fault, and the table of all."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table


@dataclass(frozen=True)
class Outcome:
    """The outcome of the jobs under one fault.

    Attributes:
        fault: Its name.
        jobs: How many were asked for.
        lost: How many have no answer, or whose caller saw an error.
        doubled_answers: Callers that saw another answer than the one stored, results stored twice with different
            content, and links and chords that fired twice.
        extra_model_calls: How many more than there were questions.
        explained_model_calls: How many more the fault must cost: runs that had called their model, or were about to,
            when their process was killed before their answer was stored.
        recovery_seconds: For each job that the fault hit, the time from there to its answer, without its model's.
        recovery_bound_seconds: The longest of them that the project promises.
        remarks: What is wrong besides.
        figures: What the fault is about besides, by name.
    """

    fault: str
    jobs: int
    lost: int
    doubled_answers: int
    extra_model_calls: int
    explained_model_calls: int
    recovery_seconds: tuple[float, ...]
    recovery_bound_seconds: float
    remarks: tuple[str, ...] = ()
    figures: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def is_as_promised(self) -> bool:
        """True if nothing is lost, doubled, called for no reason, late or remarked."""
        return (
            self.lost == self.doubled_answers == 0
            and self.extra_model_calls <= self.explained_model_calls
            and max(self.recovery_seconds, default=0.0) <= self.recovery_bound_seconds
            and not self.remarks
        )

    @property
    def summary(self) -> str:
        """The numbers that decide, in one line, and the first remark."""
        recovery = f"{max(self.recovery_seconds, default=0.0):.1f} of {self.recovery_bound_seconds:g} s"
        calls = f"{self.extra_model_calls} extra calls, {self.explained_model_calls} explained"
        remarks = "".join(f"; {remark}" for remark in self.remarks)[:300].replace("\n", " ")
        return f"{self.lost} lost, {self.doubled_answers} doubled, {calls}, recovery {recovery}{remarks}"

    def worsened(self, *, lost: int = 0, doubled_answers: int = 0, remarks: Sequence[str] = ()) -> Outcome:
        """Return it with what else was found."""
        return dataclasses.replace(
            self,
            lost=self.lost + lost,
            doubled_answers=self.doubled_answers + doubled_answers,
            remarks=(*self.remarks, *remarks),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it with its verdict."""
        return dataclasses.asdict(self) | {"is_as_promised": self.is_as_promised}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Outcome:
        """Read what ``to_json`` wrote."""
        known = {field.name for field in dataclasses.fields(cls)}
        lists = {"recovery_seconds": tuple(fields["recovery_seconds"]), "remarks": tuple(fields["remarks"])}
        return cls(**{name: value for name, value in fields.items() if name in known} | lists)


def build_table(outcomes: Sequence[Outcome]) -> Table:
    """Return the table that ``make chaos`` prints."""
    table = Table(title="Faults", title_justify="left")
    table.add_column("fault")
    for name in ("jobs", "lost", "doubled\nanswers", "extra\nmodel calls", "of these\nexplained"):
        table.add_column(name, justify="right")
    table.add_column("hit jobs'\nrecovery, median", justify="right")
    table.add_column("worst", justify="right")
    table.add_column("promised", justify="right")
    table.add_column("")
    for outcome in outcomes:
        recovery = outcome.recovery_seconds
        table.add_row(
            outcome.fault,
            str(outcome.jobs),
            str(outcome.lost),
            str(outcome.doubled_answers),
            str(outcome.extra_model_calls),
            str(min(outcome.extra_model_calls, outcome.explained_model_calls)),
            f"{statistics.median(recovery):.1f} s" if recovery else "–",
            f"{max(recovery):.1f} s" if recovery else "–",
            f"≤ {outcome.recovery_bound_seconds:g} s",
            "ok" if outcome.is_as_promised else "NOT AS PROMISED",
        )
    return table
