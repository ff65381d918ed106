"""Reads an experiment's sums from Redis, as the metrics of each arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from dspyq.experiments.packed_sums import read_arrays, read_counts, read_units
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.sums import ArmSums, ClusterSums, RowSums, unpack_counters
from dspyq.store.clients import redis_errors


class _Counter(NamedTuple):
    """The place of a metric in its array.

    Attributes:
        field: Of its sum.
        per_unit: Parts of the metric's unit that the sum counts.
        square: The field of its squares, by question alone; None where each value is 0 or 1.
        square_per_unit: Parts of the metric's unit whose squares that counts.
    """

    field: int
    per_unit: float = 1
    square: int | None = None
    square_per_unit: float = 1


_NANO, _MICRO, _MILLI = 1e9, 1e6, 1e3
#: Fields of the arrays, by unit and by question; field 0 is the number of rows.
CALL_FIELDS, _ANSWERS = (7, 9), (5, 8)
_OF_RANGE_FIELDS, _EXPOSED_FIELDS = (2, 3), (1, 1)
CALL_COUNTERS = {
    "call.failed": _Counter(1),
    "call.fallback": _Counter(2),
    "call.waited": _Counter(3, _MICRO, 7, _MILLI),
    "call.paid": _Counter(4, _NANO, 8, _MICRO),
    "call.hit": _Counter(5),
    "call.slow_wait": _Counter(6),
}
_ANSWER_COUNTERS = {
    "answer.cost": _Counter(1, _NANO, 5, _MICRO),
    "answer.time": _Counter(2, _MICRO, 6, _MILLI),
    "answer.slow": _Counter(3),
    "answer.tokens": _Counter(4, 1, 7, 1),
}
_OF_RANGE = _Counter(1, _MICRO, 2, 1e4)
#: Mature days are folded into one; those that are not yet are read for so many days.
MOST_UNFOLDED_DAYS = 7


class ArmReading(NamedTuple):
    """Sums of an arm.

    Attributes:
        units: Units that were enrolled in it, each counted once.
        dropped: Calls that were not counted, because too many waited for one run.
        unscored: Scores that computed answers do not have, by score (``*`` for all of them) and reason.
        metrics: Sums by metric; of judgements, those of days that are mature.
    """

    units: int
    dropped: int
    metrics: dict[str, ArmSums]
    unscored: Mapping[tuple[str, str], int] = MappingProxyType({})


def read_sums(state: ExperimentState, table: Mapping[str, Any], *, today: int) -> dict[str, ArmReading]:
    """Return each arm's sums.

    Args:
        state: The experiment.
        table: Its frozen table.
        today: Days since 1970, UTC.

    Raises:
        RedisUnavailable: If Redis does not answer.
        DamagedKey: If another program wrote to one of their keys.
    """
    arrays = list(_arrays(table, mature_days(table, today)))
    names = [f"{arm}:{array}:{side}" for arm in state.arms for array in arrays for side in ("u", "q")]
    with redis_errors("read the experiment's sums"):
        units = read_counts(state, "units") | read_units(state)
        unscored = read_counts(state, "unscored")
        stored = read_arrays(state, names, is_strict=True)
    packed = {name: each or b"" for name, each in zip(names, stored, strict=True)}
    return {
        arm: ArmReading(
            units=units.get(arm.encode(), 0),
            dropped=units.get(f"dropped:{arm}".encode(), 0),
            metrics=_Arm(arm, packed, has_units=state.unit != "inputs").metrics(table, mature_days(table, today)),
            unscored=_unscored(unscored, arm),
        )
        for arm in state.arms
    }


def mature_days(table: Mapping[str, Any], today: int) -> list[str]:
    """Return the names of the arrays of mature days: all that are folded, and each that may not be yet.

    Feedback that comes at another pace in one arm is no effect. So only days are compared whose exposures have had the
    whole window (delayed outcomes: Chapelle, KDD 2014; for sequential tests: Lindon and Kallus 2026, arXiv:2603.25971).
    """
    if not table["feedback"]:
        return []
    last = last_mature_day(table, today)
    return ["mature", *map(str, range(last - MOST_UNFOLDED_DAYS, last + 1))]


def last_mature_day(table: Mapping[str, Any], today: int) -> int:
    """Return the last day of which no judgement may come any more."""
    return today - longest_window_days(table) - 1


def longest_window_days(table: Mapping[str, Any]) -> int:
    """Return for how many days after its call a judgement may still come."""
    return max((int(each["window_days"]) for each in table["feedback"].values()), default=0)


def _arrays(table: Mapping[str, Any], days: Iterable[str]) -> Iterator[str]:
    yield from ("calls", "answers")
    for name in table["scores"]:
        yield from (f"score:{name}", f"delivered:{name}")
    for day in days:
        yield f"exposed:{day}"
        yield from (f"feedback:{name}:{day}" for name in table["feedback"])


def _unscored(found: Mapping[bytes, int], arm: str) -> dict[tuple[str, str], int]:
    words = ((field.decode(errors="replace").split(), count) for field, count in found.items())
    return {(word[2], word[1]): count for word, count in words if len(word) == 3 and word[0] == arm}  # noqa: PLR2004 - arm, reason and score


class _Arm:
    """The arrays of one arm."""

    def __init__(self, arm: str, packed: Mapping[str, bytes], *, has_units: bool) -> None:
        self._arm = arm
        self._packed = packed
        self._has_units = has_units

    def metrics(self, table: Mapping[str, Any], days: Sequence[str]) -> dict[str, ArmSums]:
        """Return the sums of every metric that the table names."""
        found: dict[str, ArmSums] = {}
        for counters, array, fields in ((CALL_COUNTERS, "calls", CALL_FIELDS), (_ANSWER_COUNTERS, "answers", _ANSWERS)):
            columns = self._columns(array, fields)
            found |= {metric: self._sums(columns, counter) for metric, counter in counters.items()}
        found["call.hit"] = in_range(found["call.hit"], 1, 0)  # calls that were no hits are counted: there are fewer
        for name, span in table["scores"].items():
            for family, array in (("answer", "score"), ("delivered", "delivered")):
                sums = self._sums(self._columns(f"{array}:{name}", _OF_RANGE_FIELDS), _OF_RANGE)
                found[f"{family}.{name}"] = in_range(sums, span["low"], span["high"])
        exposed = self._days([f"exposed:{day}" for day in days], _EXPOSED_FIELDS)
        for name, span in table["feedback"].items():
            judged = self._days([f"feedback:{name}:{day}" for day in days], _OF_RANGE_FIELDS)
            found[f"feedback.{name}"] = in_range(self._sums(judged, _OF_RANGE), span["low"], span["high"])
            found[f"response.{name}"] = self._sums(_Columns(judged.by_unit[:1], judged.by_question[:1]), None, exposed)
        return found

    def _columns(self, array: str, fields: tuple[int, int]) -> _Columns:
        of_units, of_questions = fields
        by_unit = unpack_counters(self._packed[f"{self._arm}:{array}:u"], of_units) if self._has_units else ()
        return _Columns(by_unit, unpack_counters(self._packed[f"{self._arm}:{array}:q"], of_questions))

    def _days(self, arrays: Sequence[str], fields: tuple[int, int]) -> _Columns:
        days = [self._columns(array, fields) for array in arrays]
        return _Columns(_added([day.by_unit for day in days]), _added([day.by_question for day in days]))

    def _sums(self, columns: _Columns, counter: _Counter | None, rows: _Columns | None = None) -> ArmSums:
        """Return a metric's sums; the counter is None for one that counts rows of its own beside those of others."""
        field, per_unit = (counter.field, counter.per_unit) if counter else (0, 1)
        of_rows = rows or columns
        by_question = _clusters(columns.by_question, field, of_rows.by_question, per_unit)
        by_unit = _clusters(columns.by_unit, field, of_rows.by_unit, per_unit) if columns.by_unit else None
        total = math.fsum(by_question.numerators)
        squares = total
        if counter and counter.square is not None:
            squares = sum(columns.by_question[counter.square]) / counter.square_per_unit**2
        return ArmSums(by_question, by_unit, RowSums(math.fsum(by_question.denominators), total, squares))


class _Columns(NamedTuple):
    """Counters by field, then by bucket; without those by unit where the unit is the question."""

    by_unit: tuple[tuple[int, ...], ...]
    by_question: tuple[tuple[int, ...], ...]


_Counters = tuple[tuple[int, ...], ...]


def _clusters(values: _Counters, field: int, rows: _Counters, per_unit: float) -> ClusterSums:
    return ClusterSums(tuple(each / per_unit for each in values[field]), tuple(map(float, rows[0])))


def _added(tables: Sequence[_Counters]) -> _Counters:
    return tuple(tuple(map(sum, zip(*fields, strict=True))) for fields in zip(*tables, strict=True))


def in_range(sums: ArmSums, low: float, high: float) -> ArmSums:
    """Return sums of values of 0 to 1 as those of the values in their range."""
    span = high - low

    def clusters(each: ClusterSums) -> ClusterSums:
        pairs = zip(each.numerators, each.denominators, strict=True)
        return ClusterSums(tuple(low * rows + span * value for value, rows in pairs), each.denominators)

    rows = sums.rows
    return ArmSums(
        clusters(sums.by_question),
        sums.by_unit and clusters(sums.by_unit),
        rows
        and RowSums(
            rows.rows,
            low * rows.rows + span * rows.total,
            low * low * rows.rows + 2 * low * span * rows.total + span * span * rows.squares,
        ),
    )
