"""Questions of the endpoints that ask: sent as part of the caller's trace, and waited for while the client is there."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dspyq.celery_app.groups import arrival
from dspyq.client.off_loop import soon
from dspyq.client.result import PredictionResult
from dspyq.prediction.request import Request
from dspyq.serve.exchange import Exchange
from dspyq.serve.ids import CallOfPrediction
from dspyq.tracing.propagation import request_context

_TRACE = (b"traceparent", b"tracestate")


@contextmanager
def trace_of(exchange: Exchange) -> Iterator[None]:
    """Be part of the caller's trace within a block, where it has one."""
    if b"traceparent" not in exchange.headers:
        yield
        return
    trace = {name.decode(): exchange.headers.get(name, b"").decode("latin-1") for name in _TRACE}
    with request_context({name: value for name, value in trace.items() if value}, request_id=exchange.request_id):
        yield


async def ask(exchange: Exchange, request: Request, priority: int, call_id: str) -> PredictionResult:
    """Look a question up, join its run, or begin one, as part of the caller's trace where it has one.

    Args:
        exchange: The request.
        request: The question.
        priority: Its turn, 0 (most urgent) to 9.
        call_id: The name of the call, and of the task that it begins.
    """
    with trace_of(exchange):
        return await exchange.door.asker.ask(request, call_id, priority)


def call_of(handle: PredictionResult, call_id: str) -> CallOfPrediction:
    """Return the call of a handle that was asked for now."""
    return CallOfPrediction.made_now(handle.id, call_id, handle.cache_level)


async def wait_for_answers(exchange: Exchange, handles: Sequence[PredictionResult], seconds: float) -> bool:
    """Wait for answers; return False after some seconds, when the server ends, or when the client has left.

    Args:
        exchange: The request.
        handles: The handles, which receive the answers that come.
        seconds: How long to wait for all of them.
    """
    missing = [handle for handle in handles if handle.payload is None]
    if not missing or seconds <= 0:
        return not missing
    watching: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(seconds) as limit:
            with exchange.door.ends_early(limit):
                watching = asyncio.ensure_future(_watch(exchange, missing, limit))
                await asyncio.gather(*map(_receive, missing))
    except TimeoutError:
        return False
    finally:
        if watching is not None:
            watching.cancel()
    return True


async def _receive(handle: PredictionResult) -> None:
    handle.receive(await arrival(handle.id, is_sent=True, asked_at=handle.asked_at))


async def _watch(exchange: Exchange, handles: Sequence[PredictionResult], limit: asyncio.Timeout) -> None:
    """End a wait when its client hangs up, and withdraw its calls where the settings want that."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    if exchange.door.serve.on_hangup == "cancel":
        soon(functools.partial(_withdraw, handles))
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


def _withdraw(handles: Sequence[PredictionResult]) -> None:
    for handle in handles:
        handle.cancel()
