"""A standstill of a batch: rows are in flight and none is done for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from dspyq.guards import waits

#: Time without a finished row after which a batch stands still, and between look-ups of the reason.
LOOK_EVERY_SECONDS = 5.0


class Standstill:
    """Reason for a batch's standstill. Not thread-safe.

    Args:
        look_up: Returns the reason for a job's wait, in words.
    """

    def __init__(self, look_up: Callable[[str], str] = waits.reason) -> None:
        self._look_up = look_up
        self._done = -1
        self._look_at = 0.0
        self._reason = ""

    def reason(self, done: int, in_flight: Iterable[str]) -> str:
        """Return the reason for the first in-flight row's wait; "" while rows are finished or none is in flight.

        Args:
            done: Number of finished rows.
            in_flight: The tasks in flight, the oldest first.
        """
        task_id = next(iter(in_flight), None)
        now = time.monotonic()
        if done != self._done or task_id is None:
            self._done, self._reason, self._look_at = done, "", now + LOOK_EVERY_SECONDS
        elif now >= self._look_at:
            self._reason = self._look_up(task_id)
            self._look_at = time.monotonic() + LOOK_EVERY_SECONDS
        return self._reason
