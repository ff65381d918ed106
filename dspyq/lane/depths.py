"""Numbers of calls that a row takes: it is begun only if all of them can be paid."""

from __future__ import annotations

from collections.abc import Mapping

from dspyq.config.programs import Program
from dspyq.guards.call_records import JobRun

#: A program of its own makes so many calls, or more, until it has shown how many.
_CAUTIOUS = 2


class Depths:
    """The numbers of calls of rows, by program and variant, as this process has seen them.

    Args:
        programs: The programs of the configuration.
        predictors: How many predictors each has, by the names of program and variant.
    """

    def __init__(self, programs: Mapping[str, Program], predictors: Mapping[tuple[str, str], int]) -> None:
        self._programs = programs
        self._predictors = predictors
        self._most: dict[tuple[str, str], int] = {}

    def calls_left(self, job: JobRun, replies: int) -> int:
        """Return how many calls a row still needs, at least this one; and learn from it.

        Args:
            job: Its run.
            replies: How many of its calls are answered and were asked again.
        """
        kind = job.program, job.variant
        most = self._most[kind] = max(self._most.get(kind) or self._estimate(kind), replies + 1)
        return max(1, most - replies)

    def _estimate(self, kind: tuple[str, str]) -> int:
        """Return how many calls a program makes at least, before any of its rows was seen."""
        program, variant = kind
        if self._programs[program].as_served(variant).class_path is None:  # Predict or ChainOfThought
            return 1
        return max(_CAUTIOUS, self._predictors.get(kind, 0))
