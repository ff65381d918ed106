"""Questions of the endpoints that ask: sent, and waited for while the client is there, as part of its trace."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from dspyq.celery_app.groups import arrival
from dspyq.client.exposed import token_if_any
from dspyq.client.off_loop import soon
from dspyq.client.result import PredictionResult
from dspyq.prediction.request import Request
from dspyq.serve.exchange import Exchange
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.withdrawal import withdraw
from dspyq.serve.waiting.waits import bounded_wait
from dspyq.tracing.propagation import TRACE_HEADERS, request_context
from dspyq.tracing.tracing import process_tracing

if TYPE_CHECKING:
    from dspyq.tracing.spans import Tracing

_UNTRACED: AbstractContextManager[None] = nullcontext()


def trace_of(exchange: Exchange) -> AbstractContextManager[None]:
    """Be part of the client's trace within a block, where it has one; in a span of its own where tracing is on."""
    tracing = process_tracing()
    if tracing is None and b"traceparent" not in exchange.headers:
        return _UNTRACED
    return _traced(exchange, tracing)


@contextmanager
def _traced(exchange: Exchange, tracing: Tracing | None) -> Iterator[None]:
    trace = {name: exchange.headers.get(name.encode(), b"").decode("latin-1") for name in TRACE_HEADERS}
    with request_context({name: value for name, value in trace.items() if value}, request_id=exchange.request_id):
        if tracing is None:
            yield
            return
        method, route = exchange.scope["method"], exchange.scope["route"].path
        with tracing.span(f"{method} {route}", "server", {"http.request.method": method, "http.route": route}) as span:
            yield
            tracing.add(span, {"http.response.status_code": exchange.status or None})


async def ask(exchange: Exchange, request: Request, priority: int, call_id: str) -> PredictionResult:
    """Look a question up, join its run, or begin one.

    Args:
        exchange: The request.
        request: The question.
        priority: Its turn, 0 (most urgent) to 9.
        call_id: The name of the call, and of the task that it begins.
    """
    return await exchange.door.asker.ask(request, call_id, priority)


def call_of(handle: PredictionResult, call_id: str) -> CallOfPrediction:
    """Return the call of a handle that was asked for now."""
    exposure = token_if_any(handle.runtime, handle.request) or ""
    return CallOfPrediction.made_now(handle.id, call_id, handle.cache_level, exposure)


async def wait_for_answers(
    exchange: Exchange, asked: Sequence[tuple[PredictionResult, CallOfPrediction]], seconds: float
) -> bool:
    """Wait for answers; return False after some seconds, when the server ends, or when the client has left.

    Args:
        exchange: The request.
        asked: The handles, which receive the answers that come, each with its call, which is withdrawn if the client
            hangs up and the settings want that.
        seconds: How long to wait for all of them.
    """
    missing = [(handle, call) for handle, call in asked if handle.payload is None]
    if not missing or seconds <= 0:
        return not missing
    withdraws = exchange.door.serve.on_hangup == "cancel"
    calls = [call for _, call in missing]
    when_left = functools.partial(soon, functools.partial(_withdraw, calls)) if withdraws else None
    try:
        async with bounded_wait(exchange, seconds, when_left):
            await asyncio.gather(*(_receive(handle) for handle, _ in missing))
    except TimeoutError:
        return False
    return True


async def _receive(handle: PredictionResult) -> None:
    handle.receive(await arrival(handle.id, is_sent=True, asked_at=handle.asked_at))


def _withdraw(calls: Sequence[CallOfPrediction]) -> None:
    for call in calls:
        withdraw(call, "cancelled")
