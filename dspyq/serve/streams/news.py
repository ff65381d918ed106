"""Wakes a stream that waits for news."""

from __future__ import annotations

import asyncio


class News:
    """A flag that one task waits for. An ``asyncio.Event`` takes eight times the memory, and streams are many."""

    __slots__ = ("_has_come", "_waiting")

    def __init__(self) -> None:
        self._has_come = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Set it, and wake the task that waits."""
        self._has_come = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def clear(self) -> None:
        """Take it back."""
        self._has_come = False

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._has_come:
            return
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None
