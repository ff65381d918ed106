"""Discrete events: a clock that runs what is due, and stations where work waits for its turn."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """Time of a simulation.

    Attributes:
        now: Its second.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()  # what is due at once happens in the order in which it was set

    def at(self, second: float, happen: Callable[[], None]) -> None:
        """Let something happen at a second."""
        heapq.heappush(self._due, (second, next(self._numbers), happen))

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen in so many seconds."""
        self.at(self.now + seconds, happen)

    def run(self, until: float) -> None:
        """Let happen what is due until a second."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, happen = heapq.heappop(due)
            happen()
        self.now = max(self.now, until)


class Station:
    """One core that does work in the order in which it comes: a Redis, or a worker's interpreter.

    While it is away, work waits; what it had begun or kept waiting is done when it is back, as clients ask again.

    Attributes:
        busy_seconds: Its processor time up to the end of the work that it has.
        longest_wait_seconds: The longest that any work waited for its turn, outages left out.
    """

    def __init__(self, clock: Clock) -> None:
        self.busy_seconds = self.longest_wait_seconds = 0.0
        self._clock = clock
        self._free_at = 0.0
        self._outages = 0
        self._back_at = 0.0

    @property
    def is_away(self) -> bool:
        """True in an outage."""
        return self._clock.now < self._back_at

    def work(self, seconds: float, then: Callable[[], None]) -> None:
        """Do work of so many seconds of processor, and then something."""
        clock, outages = self._clock, self._outages
        began = max(clock.now, self._free_at)
        if self._back_at <= clock.now:
            self.longest_wait_seconds = max(self.longest_wait_seconds, began - clock.now)
        self._free_at = began + seconds
        self.busy_seconds += seconds

        def end() -> None:
            if self._outages == outages:
                then()
            else:
                self.work(seconds, then)

        clock.at(self._free_at, end)

    def go_away(self, seconds: float) -> None:
        """Be away for so many seconds from now on."""
        self._outages += 1
        self._back_at = self._free_at = self._clock.now + seconds
