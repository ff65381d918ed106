"""A worker's event loop, as kombu's transport gets it."""

from __future__ import annotations

from typing import Any


class Loop:
    """A worker's event loop that registers each socket once.

    kombu registers every socket before each of its polls: a system call each, which fails, and for which the loop gives
    the interpreter away to hundreds of threads. A socket that kombu replaces, it registers itself.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        """Return everything else as the hub has it."""
        return getattr(self._hub, name)

    def add_reader(self, fd: int, callback: Any, *args: Any) -> None:
        """Register what is not registered yet."""
        if self._hub.readers.get(fd) != (callback, args):
            self._hub.add_reader(fd, callback, *args)
