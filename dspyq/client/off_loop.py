"""Calls of Redis for an event loop, made in a few threads so that a slow Redis does not block the loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.errors import RedisUnavailable

#: Each waits for Redis most of the time; more would only queue there.
_THREADS = 16
Given = ParamSpec("Given")
Result = TypeVar("Result")


async def off_loop(call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
    """Make a call in a thread, with this context's variables, and wait for it in the event loop."""
    return await asyncio.wrap_future(_submit(call, *args, **kwargs))


async def off_loop_in_time(
    call: Callable[Given, Result], undo: Callable[[Result], object], *args: Given.args, **kwargs: Given.kwargs
) -> Result:
    """Make a call as ``off_loop`` does, within ``redis_timeout_seconds`` including the wait for a thread.

    Args:
        call: The call.
        undo: Called in a thread with the call's result if its waiter is gone.
        *args: The call's.
        **kwargs: The call's.

    Raises:
        RedisUnavailable: If it takes longer.
    """
    future = _submit(call, *args, **kwargs)
    seconds = get_settings().redis_timeout_seconds
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)
    except TimeoutError:
        future.add_done_callback(functools.partial(_undo, undo))
        raise RedisUnavailable(
            f"Redis has not answered within redis_timeout_seconds, {seconds:g} s: check DSPYQ_REDIS_URL and that Redis "
            "is running"
        ) from None
    except asyncio.CancelledError:
        future.add_done_callback(functools.partial(_undo, undo))
        raise


def soon(call: Callable[[], object]) -> None:
    """Make a call in a thread without waiting for it; its failure is counted and logged."""
    _submit(_tolerantly, call)


def _submit(call: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
    return _executor().submit(contextvars.copy_context().run, functools.partial(call, *args, **kwargs))


def _undo(undo: Callable[[Any], object], future: Future[Any]) -> None:
    """Undo a call in a thread, unless it was not made or failed."""
    if not future.cancelled() and future.exception() is None:
        soon(functools.partial(undo, future.result()))


def _tolerantly(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - no caller waits for it
        tolerate("callback", error)


@per_runtime(close=ThreadPoolExecutor.shutdown)
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="dspyq-asking")
