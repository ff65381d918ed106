"""Waits of requests: each ends with its time, with the server, or with its client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from dspyq.serve.exchange import Exchange


@asynccontextmanager
async def bounded_wait(
    exchange: Exchange, seconds: float, when_left: Callable[[], object] | None = None
) -> AsyncIterator[None]:
    """Bound what a request waits for.

    Args:
        exchange: The request, whose body was read.
        seconds: The longest wait.
        when_left: Called if the client hangs up meanwhile.

    Raises:
        TimeoutError: After that time, when the server ends, or when the client has left.
    """
    watching: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(seconds) as limit:
            with exchange.door.ends_early(limit):
                watching = asyncio.ensure_future(_watch(exchange, limit, when_left))
                yield
    finally:
        if watching is not None:
            watching.cancel()


async def _watch(exchange: Exchange, limit: asyncio.Timeout, when_left: Callable[[], object] | None) -> None:
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    if when_left is not None:
        when_left()
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())
