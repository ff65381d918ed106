"""Calls that are withdrawn while their streams are open, in whichever process that is done.

A run goes on where others wait for it, so that nothing else ends the stream of the call that is withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dspyq.cache.memory import process_cache
from dspyq.store.keys import withdrawn_calls_channel
from dspyq.store.spines import each_spine


class WatchedCall:
    """A call whose stream is open.

    Attributes:
        is_withdrawn: Whether the call was withdrawn since.
        wake: Called when it is, in another thread.
    """

    __slots__ = ("is_withdrawn", "wake")

    def __init__(self) -> None:
        self.is_withdrawn = False
        self.wake: Callable[[], object] | None = None

    def note(self) -> None:
        """Note that it was withdrawn."""
        self.is_withdrawn = True
        if self.wake is not None:
            self.wake()


class Withdrawals:
    """The calls that a process streams. Their withdrawals come by the memory cache's channel; without one, by none."""

    def __init__(self) -> None:
        self._watched: dict[bytes, tuple[WatchedCall, ...]] = {}
        for _ in each_spine():  # a withdrawal is published where its call's question is
            process_cache().follow(withdrawn_calls_channel(), self._receive)

    @contextmanager
    def watch(self, call_id: str) -> Iterator[WatchedCall]:
        """Watch a call, for as long as its stream is open."""
        name, watched = call_id.encode(), WatchedCall()
        self._watched[name] = (*self._watched.get(name, ()), watched)
        try:
            yield watched
        finally:
            left = tuple(each for each in self._watched[name] if each is not watched)
            if left:
                self._watched[name] = left
            else:
                del self._watched[name]

    def _receive(self, message: bytes | None) -> None:
        for watched in self._watched.get(message or b"", ()):
            watched.note()
