"""A line of threads that wait for the same thing: the first asks for it, the others stand behind and ask nobody."""

from __future__ import annotations

import threading
from typing import Self


class Line:
    """The threads of this process that wait for money which other calls hold.

    Those whose jobs came back more often stand before others, so that no job waits for luck.
    """

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._lock = threading.Lock()

    def place(self, turns: int) -> Place:
        """Give a place, not in the line yet; it leaves the line with its context.

        Args:
            turns: How often the job has come to be run.
        """
        return Place(self, turns)

    def __len__(self) -> int:
        """Return how many stand in it."""
        return len(self._places)

    def is_before(self, place: Place) -> bool:
        """Whether others stand before a place, or would if it stood in line."""
        places = self._places
        return bool(places) and places[0] is not place

    def enter(self, place: Place) -> None:
        """Put a place into the line, behind the first, who may be asking."""
        with self._lock:
            if place in self._places:
                return
            index = len(self._places)
            while index > 1 and self._places[index - 1].turns < place.turns:
                index -= 1
            self._places.insert(index, place)
            self._places[0].reached_front.set()

    def nudge(self) -> None:
        """Have the first ask now: something has changed here."""
        with self._lock:
            if self._places:
                self._places[0].nudged.set()

    def leave(self, place: Place) -> None:
        """Take a place out of the line; the next is first then."""
        with self._lock:
            if place in self._places:
                self._places.remove(place)
            if self._places:
                self._places[0].reached_front.set()


class Place:
    """One thread's place; a context, at whose end it leaves the line.

    Attributes:
        turns: How often its job has come to be run.
        reached_front: Set once it is the first; there is one only once it has stood in line, as most never do.
        nudged: Set once it has a reason to ask now; as above.
    """

    reached_front: threading.Event
    nudged: threading.Event

    def __init__(self, line: Line, turns: int) -> None:
        self.turns = turns
        self._line = line
        self._has_stood = False

    def __enter__(self) -> Self:
        """Enter the place, not the line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the line."""
        self.leave()

    @property
    def must_wait(self) -> bool:
        """Whether others stand before it."""
        return self._line.is_before(self)

    def reach_front(self, seconds: float) -> bool:
        """Stand in line until it is the first; return whether it is, after so many seconds at most."""
        if not self._has_stood:
            self._has_stood = True
            self.reached_front, self.nudged = threading.Event(), threading.Event()
        self._line.enter(self)
        return self.reached_front.wait(max(0.0, seconds))

    def pause(self, seconds: float) -> None:
        """Wait before it asks again, unless it is nudged."""
        self.nudged.wait(seconds)
        self.nudged.clear()

    def leave(self) -> None:
        """Leave the line, if it stands in it."""
        if self._has_stood:
            self._line.leave(self)
            self.reached_front.clear()
