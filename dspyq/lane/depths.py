"""Numbers of calls that a row takes, as this process has seen them: a row is begun only if all can be paid."""

from __future__ import annotations

from dspyq.guards.call_records import JobRun


class Depths:
    """The numbers of calls of rows, by program and variant."""

    def __init__(self) -> None:
        self._most: dict[tuple[str, str], int] = {}

    def calls_left(self, job: JobRun, replies: int) -> int:
        """Return how many calls a row still needs, at least this one; and learn from it.

        Args:
            job: Its run.
            replies: How many of its calls were answered.
        """
        kind = job.program, job.variant
        most = self._most[kind] = max(self._most.get(kind, 1), replies + 1)
        return max(1, most - replies)
