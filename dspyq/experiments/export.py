"""Rows of an experiment as examples: each question once, weighed by how often it was served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dspyq.errors import ExperimentRefused
from dspyq.experiments.rows import JudgedSum, KeptRow

_PARTS = 1_000_000
#: One more than the highest name of a question.
_QUESTIONS = 16**8


class ExportedRow(NamedTuple):
    """A question and the best answer there is to it.

    Attributes:
        row: The answer.
        weight: Calls that any answer to the question was served to.
        scores: The answer's scores by name, within their ranges.
        judgements: The means of its callers' judgements by name, within their ranges.
    """

    row: KeptRow
    weight: int
    scores: dict[str, float]
    judgements: dict[str, float]

    def stated(self, name: str, *, with_feedback: bool) -> dict[str, Any]:
        """Return it as a line of the export of the experiment of that name."""
        row = self.row
        line = {
            "custom_id": row.question,
            "program": row.exposure.program,
            "experiment": name,
            "arm": row.exposure.arm,
            "fingerprint": row.fingerprint,
            "inputs": row.inputs,
            "outputs": row.outputs,
            "weight": self.weight,
            "scores": self.scores,
        }
        if with_feedback:
            line["feedback"] = {
                judgement: {"mean": mean, "count": row.judgements[judgement].number}
                for judgement, mean in self.judgements.items()
            }
        return line


def choose_rows(
    rows: Iterable[KeptRow], table: Mapping[str, Any], minimums: Mapping[str, float] | None = None
) -> list[ExportedRow]:
    """Return each question once, with the best of its answers that are good enough.

    The best is the one with the highest primary score, then the highest mean judgements, then the latest.

    Args:
        rows: The rows, the oldest first.
        table: The experiment's frozen table.
        minimums: The least score, or mean judgement, by name; an answer without it is left out.

    Raises:
        ExperimentRefused: If a minimum is of a score or judgement that the experiment does not have.
    """
    wanted = minimums or {}
    ranges = {**table["feedback"], **table["scores"]}
    if unknown := [name for name in wanted if name not in ranges]:
        known = ", ".join(ranges) or "none"
        raise ExperimentRefused(f"the experiment has no score or feedback {unknown[0]!r}; it has {known}")
    primary = str(table["primary"]).removeprefix("answer.").removeprefix("delivered.")
    best: dict[str, tuple[tuple[float, ...], ExportedRow]] = {}
    weights: dict[str, int] = {}
    for row in rows:
        weights[row.question] = weights.get(row.question, 0) + row.served
        exported = ExportedRow(row, 0, _means(row.scores, ranges), _means(row.judgements, ranges))
        values = {**exported.judgements, **exported.scores}
        if any(values.get(name, float("-inf")) < least for name, least in wanted.items()):
            continue
        lowest = float("-inf")
        judgements = [exported.judgements.get(name, lowest) for name in table["feedback"]]
        rank = (exported.scores.get(primary, lowest), *judgements, row.at)
        if row.question not in best or best[row.question][0] <= rank:
            best[row.question] = rank, exported
    return [exported._replace(weight=weights[question]) for question, (_, exported) in best.items()]


def split_rows(rows: Iterable[ExportedRow], share: float) -> tuple[list[ExportedRow], list[ExportedRow]]:
    """Split rows by a hash of their question: it is on the same side in the export of any experiment.

    Args:
        rows: The rows.
        share: The part of all questions on the first side.
    """
    sides: tuple[list[ExportedRow], list[ExportedRow]] = ([], [])
    for row in rows:
        sides[int(row.row.question, 16) >= share * _QUESTIONS].append(row)
    return sides


def _means(sums: Mapping[str, JudgedSum], ranges: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: ranges[name]["low"] + (ranges[name]["high"] - ranges[name]["low"]) * each.total / each.number / _PARTS
        for name, each in sums.items()
        if name in ranges and each.number
    }
