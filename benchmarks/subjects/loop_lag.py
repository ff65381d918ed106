"""Asks from an event loop on a Redis that is frozen, and measures how late the loop is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

from dspyq import predict

_PERIOD_SECONDS = 0.002
_AT_ONCE = 4
#: The connections of threads that wait are made anew, and their first errors logged, before anything is measured.
_WARM_UP_SECONDS = 0.2


def measure(seconds: float, redis_pid: int) -> dict[str, list[float]]:
    """Measure an idle loop, and the same one while it asks and awaits on a frozen Redis.

    Args:
        seconds: How long each.
        redis_pid: The process of Redis.

    Returns:
        The seconds that each turn of the loop came late: ``idle`` and ``frozen``.
    """
    predict.delay(question="warm")  # what the first call of a process imports and builds is not the loop's
    return asyncio.run(_measure(seconds, redis_pid))


async def _measure(seconds: float, redis_pid: int) -> dict[str, list[float]]:
    job = await predict.adelay(question="before")
    idle = await _lags(seconds)
    os.kill(redis_pid, signal.SIGSTOP)
    try:
        tasks = [asyncio.ensure_future(each) for number in range(_AT_ONCE) for each in _ways(number, job.id)]
        await asyncio.sleep(_WARM_UP_SECONDS)
        frozen = await _lags(seconds)
        if any(task.done() for task in tasks):
            raise RuntimeError("a call ended on a frozen Redis: nothing was measured")
    finally:
        os.kill(redis_pid, signal.SIGCONT)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"idle": idle, "frozen": frozen}


def _ways(number: int, job_id: str) -> list[Coroutine[Any, Any, Any]]:
    async def wait() -> Any:
        return await predict.AsyncResult(job_id)

    return [
        predict.ask(question=f"ask {number}"),
        predict.ask_many([{"question": f"many {number} {row}"} for row in range(10)]),
        predict.adelay(question=f"delay {number}"),
        wait(),
    ]


async def _lags(seconds: float) -> list[float]:
    lags = []
    ends_at = time.perf_counter() + seconds
    while (began_at := time.perf_counter()) < ends_at:
        await asyncio.sleep(_PERIOD_SECONDS)
        lags.append(time.perf_counter() - began_at - _PERIOD_SECONDS)
    return lags
