"""Line of threads that wait for the same resource: only the first one polls for it."""

from __future__ import annotations

import threading
from typing import Self


class WaitingLine:
    """The threads of this process that wait for money which other calls hold.

    Threads whose jobs returned more often go first, so that no job starves.
    """

    def __init__(self) -> None:
        self._places: list[Ticket] = []
        self._lock = threading.Lock()

    def place(self, turns: int) -> Ticket:
        """Return a ticket that has not entered the line yet; it leaves the line with its context.

        Args:
            turns: Number of runs of the job.
        """
        return Ticket(self, turns)

    def __len__(self) -> int:
        """Return the number of tickets in line."""
        return len(self._places)

    def is_before(self, place: Ticket) -> bool:
        """Return True if another ticket is first in line."""
        places = self._places
        return bool(places) and places[0] is not place

    def enter(self, place: Ticket) -> None:
        """Insert a ticket, never before the first, whose thread may be polling."""
        with self._lock:
            if place in self._places:
                return
            index = len(self._places)
            while index > 1 and self._places[index - 1].turns < place.turns:
                index -= 1
            self._places.insert(index, place)
            self._places[0].reached_front.set()

    def nudge(self) -> None:
        """Wake the first so that it polls now."""
        with self._lock:
            if self._places:
                self._places[0].nudged.set()

    def leave(self, place: Ticket) -> None:
        """Remove a ticket; the next one is then first."""
        with self._lock:
            if place in self._places:
                self._places.remove(place)
            if self._places:
                self._places[0].reached_front.set()


class Ticket:
    """One thread's place in line; a context manager that leaves the line at its end.

    Attributes:
        turns: Number of runs of its job.
        reached_front: Set when this ticket is first. Created lazily, on the first wait.
        nudged: Set when there is a reason to poll now. Created lazily, too.
    """

    reached_front: threading.Event
    nudged: threading.Event

    def __init__(self, line: WaitingLine, turns: int) -> None:
        self.turns = turns
        self._line = line
        self._has_stood = False

    def __enter__(self) -> Self:
        """Return the ticket; it enters the line only to wait."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line."""
        self.leave()

    @property
    def must_wait(self) -> bool:
        """Return True if another ticket is first in line."""
        return self._line.is_before(self)

    def reach_front(self, seconds: float) -> bool:
        """Wait in line until this ticket is first, for at most ``seconds``; return True if it is."""
        if not self._has_stood:
            self._has_stood = True
            self.reached_front, self.nudged = threading.Event(), threading.Event()
        self._line.enter(self)
        return self.reached_front.wait(max(0.0, seconds))

    def pause(self, seconds: float) -> None:
        """Wait before the next poll, or until nudged."""
        self.nudged.wait(seconds)
        self.nudged.clear()

    def leave(self) -> None:
        """Leave the line, if in it."""
        if self._has_stood:
            self._line.leave(self)
            self.reached_front.clear()
