"""Predictions as resources: look at one, cancel it, delete it."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import orjson
from blake3 import blake3
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dspyq.celery_app.groups import arrival
from dspyq.client.off_loop import off_loop
from dspyq.core.events import Event
from dspyq.errors import DspyqError, RedisUnavailable
from dspyq.serve.callers import ANYONE
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import Exchange, exchange_of
from dspyq.serve.predictions import rendering
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.lookup import CallStanding, look_up, read_answer
from dspyq.serve.predictions.naming import resolve
from dspyq.serve.predictions.rendering import PredictionStatus, PublicCall
from dspyq.serve.predictions.withdrawal import withdraw
from dspyq.serve.problems import GONE, NOT_FOUND, Declined, problem_of
from dspyq.serve.waiting.preferences import read_wait
from dspyq.serve.waiting.waits import bounded_wait

logger = logging.getLogger("dspyq.serve")

RETRY_LATER = (b"retry-after", b"%d" % rendering.POLL_SECONDS)


class LookAtPrediction:
    """``GET /v1/predictions/{prediction}``: 200 in any state, for the resource was found."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange, "predict")
        public = resolve(exchange, caller, scope["path_params"]["prediction"])
        seconds = read_wait(scope["query_string"], exchange.door.serve.wait_seconds)
        standing = await off_loop(look_up, public.call)
        if seconds and standing.payload is None and not standing.mark and standing.has_job:
            standing = await _wait_for(exchange, public.call, standing, seconds)
        await reply_standing(exchange, public, standing)


async def _wait_for(exchange: Exchange, call: CallOfPrediction, standing: CallStanding, seconds: float) -> CallStanding:
    """Wait for an answer to come, and return how the prediction stands then."""
    door = exchange.door
    with door.room.admit(standing.queue, exchange.caller or ANYONE):
        try:
            async with bounded_wait(exchange, seconds):
                payload = await arrival(call.task_id, is_sent=True, asked_at=float("-inf"))
        except TimeoutError:
            return await off_loop(look_up, call)
    return standing._replace(payload=payload)


async def reply_standing(exchange: Exchange, public: PublicCall, standing: CallStanding) -> None:
    """Answer with a prediction as it stands.

    Raises:
        Declined: With 404 for one that its caller deleted, with 410 for one that is no longer kept.
    """
    shown = stated(exchange, public, standing)
    if shown["status"] not in rendering.TERMINAL:
        await exchange.reply_json(200, shown, [RETRY_LATER])
        return
    shown["urls"]["events"] = f"{public.path}/events"  # without a token, which would be another each time
    body = orjson.dumps(shown)
    tag = b'"%b"' % blake3(body).hexdigest(length=16).encode()
    if tag in exchange.headers.get(b"if-none-match", b""):
        await exchange.reply(304, headers=[(b"etag", tag)])
    else:
        await exchange.reply(200, body, [(b"etag", tag)])


def stated(exchange: Exchange, public: PublicCall, standing: CallStanding) -> dict[str, Any]:
    """Return a prediction as it stands.

    Raises:
        Declined: As of ``reply_standing``.
    """
    if standing.mark == "gone":
        raise Declined(NOT_FOUND, "there is no prediction of this id")
    if standing.mark == "cancelled":
        return rendering.unfinished(public, "cancelled", standing.queue)
    if standing.payload is None and not standing.has_job:
        raise Declined(GONE, "the answer is no longer kept: ask again")
    if standing.payload is None:
        status: PredictionStatus = "running" if standing.is_running else "queued"
        return rendering.unfinished(public, status, standing.queue, standing.waits_for)
    answer = read_answer(public.call, standing.payload)
    if answer is None:
        return rendering.unfinished(public, "cancelled", standing.queue)
    if isinstance(answer, DspyqError):
        problem = problem_of(answer, shows_errors=exchange.door.serve.show_errors)
        return rendering.failed(public, problem.stated(), standing.queue)
    return rendering.succeeded(public, answer.to_dict(), answer.metadata)


async def state_unfinished(public: PublicCall, queue: str) -> dict[str, Any]:
    """Return a prediction that has not come in time, with what it waits for where that can be read.

    Args:
        public: Its call.
        queue: Its queue.
    """
    try:
        standing = await off_loop(look_up, public.call)
    except RedisUnavailable as error:
        logger.warning(Event("standing_not_read", error=type(error).__name__))
        return rendering.unfinished(public, "queued", queue)
    status: PredictionStatus = "running" if standing.is_running else "queued"
    return rendering.unfinished(public, status, queue, standing.waits_for)


class CancelPrediction:
    """``POST /v1/predictions/{prediction}/cancel``: takes this call back, and answers as a look at it does."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange, "predict")
        public = resolve(exchange, caller, scope["path_params"]["prediction"])
        standing = await off_loop(look_up, public.call)
        if standing.payload is None and standing.has_job and not standing.mark:
            await off_loop(withdraw, public.call, "cancelled")
            standing = standing._replace(mark="cancelled")
        await reply_standing(exchange, public, standing)


class DeletePrediction:
    """``DELETE /v1/predictions/{prediction}``: cancels this call, and forgets it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange, "predict")
        public = resolve(exchange, caller, scope["path_params"]["prediction"])
        standing = await off_loop(look_up, public.call)
        if standing.mark == "gone":
            raise Declined(NOT_FOUND, "there is no prediction of this id")
        await off_loop(withdraw, public.call, "gone")
        await exchange.reply(204)


class _OnePrediction:
    """``/v1/predictions/{prediction}``, by method: one route, so that the refusal of another names both."""

    _by_method: ClassVar[dict[str, ASGIApp]] = {"DELETE": DeletePrediction()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._by_method.get(scope["method"], _LOOK)(scope, receive, send)


_LOOK = LookAtPrediction()
ROUTES = [
    Route("/v1/predictions/{prediction}", _OnePrediction(), methods=["GET", "DELETE"]),
    Route("/v1/predictions/{prediction}/cancel", CancelPrediction(), methods=["POST"]),
]
