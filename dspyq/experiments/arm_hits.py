"""Sums of an arm's hits on one day, as one process gathers them, and the parts that the script takes them in.

Many calls share a bucket of a unit or a question. Each of its counters is one number of a flush, so that Redis does not
add the same one twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple

import orjson

from dspyq.experiments.exposure import Exposure
from dspyq.experiments.sums_reader import CALL_COUNTERS, CALL_FIELDS

_BY_UNIT, _BY_QUESTION = CALL_FIELDS
_WAITED, _SLOW = CALL_COUNTERS["call.waited"], CALL_COUNTERS["call.slow_wait"]
#: Units and answers held while Redis does not answer; calls of further units are dropped, of all arms alike.
_MOST_HELD = 100_000
#: Values of one script, which takes Redis a few milliseconds; those of answers that were served take twice as long.
_MOST_VALUES = 8_000
_WEIGHT_OF_SERVED = 2
_MOST_OF_A_FLOAT = 1 << 53
#: Whole pairs and fours; of a unit's cell, a script makes four values of a command, and Lua has room for 8,000.
_MOST_VALUES_OF_A_PART = 1_000


class CountedPart(NamedTuple):
    """Numbers that the script adds with few commands.

    Attributes:
        kind: ``cells``; ``calls:u`` and ``calls:q``, pairs of a counter and its calls; ``sums:u`` and ``sums:q``, pairs
            of a counter and an amount; or ``served``, fours of task id, bucket of question, bucket of unit and calls,
            those of one answer side by side.
        arm: The arm.
        day: Of its calls, in days since 1970.
        values: The numbers; as text where a float does not hold them.
    """

    kind: str
    arm: str
    day: int
    values: list[str | int]


class _Sums:
    """Sums of a bucket."""

    __slots__ = ("calls", "slow", "squares", "waited")

    def __init__(self) -> None:
        self.calls = self.waited = self.slow = self.squares = 0


class ArmHits:
    """Hits of an arm on one day; for one thread at a time.

    Attributes:
        dropped: Calls that were not added, because too many wait for Redis.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._by_unit: dict[int, _Sums] = {}
        self._by_question: dict[int, _Sums] = {}
        self._cells: set[int] = set()
        self._served: dict[tuple[str, int], dict[int, int]] = {}
        self._served_units = 0

    def add(self, exposure: Exposure, task_id: str, waited_us: int, is_slow: bool) -> None:  # noqa: FBT001 - of each hit
        """Add a call.

        Args:
            exposure: The call.
            task_id: The task that answered; empty where nothing is counted by answer.
            waited_us: What its caller waited, in microseconds.
            is_slow: Whether that is longer than the threshold of ``call.slow_wait``.
        """
        _, _, _, unit, question, cell, _ = exposure
        if cell not in self._cells:
            if len(self._cells) + self._served_units >= _MOST_HELD:
                self.dropped += 1
                return
            self._cells.add(cell)
        if task_id:
            self._add_served(task_id, unit, question)
        sums = self._by_unit.get(unit)
        if sums is None:
            sums = self._by_unit[unit] = _Sums()
        sums.calls += 1
        sums.waited += waited_us
        sums.slow += is_slow
        sums = self._by_question.get(question)
        if sums is None:
            sums = self._by_question[question] = _Sums()
        sums.calls += 1
        sums.waited += waited_us
        sums.slow += is_slow
        sums.squares += (waited_us // 1000) ** 2

    def _add_served(self, task_id: str, unit: int, question: int) -> None:
        key = task_id, question
        by_unit = self._served.get(key)
        if by_unit is None:
            by_unit = self._served[key] = {}
        calls = by_unit.get(unit, 0)
        by_unit[unit] = calls + 1
        self._served_units += not calls

    def parts(self, arm: str, day: int) -> Iterator[CountedPart]:
        """Yield all of it, in parts of bounded length."""
        yield from _in_parts("cells", arm, day, self._cells)
        for side, sums, fields in (("u", self._by_unit, _BY_UNIT), ("q", self._by_question, _BY_QUESTION)):
            calls = ((bucket * fields, each.calls) for bucket, each in sums.items())
            yield from _in_parts(f"calls:{side}", arm, day, _written(calls))
            yield from _in_parts(f"sums:{side}", arm, day, _written(_others(sums, fields)))
        served = ((*key, unit, calls) for key, by_unit in self._served.items() for unit, calls in by_unit.items())
        yield from _in_parts("served", arm, day, chain.from_iterable(served))


def _others(sums: dict[int, _Sums], fields: int) -> Iterator[tuple[int, int]]:
    for bucket, each in sums.items():
        first = bucket * fields
        yield first + _WAITED.field, each.waited
        yield first + _SLOW.field, each.slow
        if fields == _BY_QUESTION and _WAITED.square is not None:
            yield first + _WAITED.square, each.squares


def _written(amounts: Iterable[tuple[int, int]]) -> Iterator[str | int]:
    """Yield counters and amounts, without those that are 0."""
    for counter, amount in amounts:
        if amount:
            yield counter
            yield amount if amount < _MOST_OF_A_FLOAT else str(amount)


def _in_parts(kind: str, arm: str, day: int, values: Iterable[str | int]) -> Iterator[CountedPart]:
    left = iter(values)
    while some := list(islice(left, _MOST_VALUES_OF_A_PART)):
        yield CountedPart(kind, arm, day, some)


def in_scripts(parts: Iterable[CountedPart]) -> Iterator[bytes]:
    """Yield what scripts are given, as JSON: it costs both sides less than an argument for each number."""
    together: list[tuple[object, ...]] = []
    weight = 0
    for part in parts:
        own = len(part.values) * (_WEIGHT_OF_SERVED if part.kind == "served" else 1)
        if together and weight + own > _MOST_VALUES:
            yield orjson.dumps(together)
            together, weight = [], 0
        together.append(tuple(part))  # orjson takes no subclass
        weight += own
    if together:
        yield orjson.dumps(together)
