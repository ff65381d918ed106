"""A prediction's text, sent to a client while it comes.

That ends when the answer is there, when the client has left, and when the server ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from dspyq.client.off_loop import off_loop, soon
from dspyq.client.result import PredictionResult
from dspyq.client.streaming import Listener
from dspyq.serve.exchange import Exchange, Headers
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.rendering import PublicCall
from dspyq.serve.streams import interest
from dspyq.serve.streams.news import News
from dspyq.serve.streams.withdrawals import WatchedCall
from dspyq.streaming.chunks import Chunk

SSE_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events until its buffer is full
]


class TextStream(Protocol):
    """A response that a prediction's text goes into.

    Attributes:
        exchange: The request.
        public: The call, which is withdrawn where its client is gone for good.
        is_over: Whether it has ended before the answer.
    """

    exchange: Exchange
    public: PublicCall
    is_over: bool

    async def send(self, chunks: Iterable[Chunk], after: int) -> None:
        """Send chunks, those of them that stand behind a place in the log."""

    async def beat(self) -> None:
        """Send a sign of life: proxies close connections that are silent."""

    async def complete(self, job: PredictionResult, listener: Listener, after: int) -> None:
        """Send the rest of the texts, and the outcome."""

    async def cancel(self) -> None:
        """End where the call was cancelled."""

    async def break_off(self, position: int) -> None:
        """End where the server ends, at a place in the log."""


async def follow(
    stream: TextStream, job: PredictionResult, watched: WatchedCall, *, after: int = 0, owner: str
) -> None:
    """Send what comes of a prediction.

    Args:
        stream: The response.
        job: The handle.
        watched: The call; where it is withdrawn, the stream ends before the run does.
        after: The place in the log that the client has all before.
        owner: The name of this connection, where it has the interest in the call; empty where it has not.
    """
    exchange, door, call = stream.exchange, stream.exchange.door, stream.public.call
    loop, news = asyncio.get_running_loop(), News()
    wake = partial(loop.call_soon_threadsafe, news.set)
    listener, watched.wake = Listener(job, wake, is_sent=True), wake
    watching = asyncio.ensure_future(_watch(exchange, news))
    door.at_end(news.set)
    door.streams += 1
    try:
        while not watching.done():
            news.clear()
            await stream.send(listener.take(), after)
            if stream.is_over:
                break
            if watched.is_withdrawn:
                await stream.cancel()
                _forget(call, owner)
                return
            if listener.is_answered:
                await stream.complete(job, listener, after)
                _forget(call, owner)
                return
            if door.is_ending:
                await stream.break_off(max(after, listener.position))
                return
            # No timeout around the wait, whose objects would be a tenth of what an idle stream takes.
            beat = loop.call_later(door.serve.heartbeat_seconds, news.set)
            await news.wait()
            beat.cancel()
            if loop.time() >= beat.when():
                await stream.beat()
    finally:
        door.streams -= 1
        door.not_at_end(news.set)
        watching.cancel()
        listener.close()
    await _hang_up(exchange, call, owner)


async def _watch(exchange: Exchange, news: News) -> None:
    """Return when the client has hung up."""
    while (await exchange.receive())["type"] != "http.disconnect":
        pass
    news.set()


async def _hang_up(exchange: Exchange, call: CallOfPrediction, owner: str) -> None:
    """Withdraw the call of a client that has hung up and does not come back."""
    if owner and not exchange.door.is_ending:
        await asyncio.sleep(exchange.door.serve.hangup_seconds)
        await off_loop(interest.withdraw_interest, call, owner)


def _forget(call: CallOfPrediction, owner: str) -> None:
    if owner:
        soon(lambda: interest.end_interest(call, owner))
