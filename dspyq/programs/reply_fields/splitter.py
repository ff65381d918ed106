"""Common parts of the splitters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

#: Takes the name of an output field and the next piece of its text.
Emit = Callable[[str, str], None]


class Splitter(Protocol):
    """Protocol of a splitter of one reply."""

    def feed(self, text: str) -> None:
        """Take the next piece of the reply."""

    def end(self) -> None:
        """Take note that the reply is whole."""


class StrippedText:
    """A value without whitespace around it: whitespace is held back until more of the value comes.

    Args:
        emit: Takes the pieces of the value.
    """

    __slots__ = ("_emit", "_has_begun", "_held")

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._held: list[str] = []
        self._has_begun = False

    def add(self, text: str) -> None:
        """Take the next piece."""
        if not self._has_begun:
            text = text.lstrip()
        kept = text.rstrip()
        if kept:
            self._emit("".join((*self._held, kept)))
            self._held.clear()
            self._has_begun = True
        if len(kept) < len(text):
            self._held.append(text[len(kept) :])

    def strip(self) -> None:
        """Drop the whitespace that is held back."""
        self._held.clear()
