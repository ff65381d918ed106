"""Streams of predictions for their callers: ``job.stream()`` and ``job.astream()``."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from celery.exceptions import TimeoutError as CeleryTimeoutError

from dspyq.cache.moves import find_runs
from dspyq.celery_app.timeouts import timed_out
from dspyq.celery_app.waiting import process_waiter
from dspyq.client.off_loop import off_loop
from dspyq.config.settings import get_settings
from dspyq.prediction.prediction import Prediction
from dspyq.store.spines import on_spine
from dspyq.streaming.chunks import Chunk, ListenerView

#: A handle; its own module imports this one.
_Job = Any


class Streamed:
    """The part of a handle that streams its prediction."""

    _payload: bytes | None
    _cache: Any

    @property
    def is_known(self) -> bool:
        """True if this handle has its result, so that nothing is waited for."""
        return self._payload is not None or self._cache is not None

    def stream(self, timeout: float | None = None) -> Iterator[Chunk]:
        """Yield the text of the prediction while it comes, in a thread; any number of times and at any time.

        A listener that comes late gets all from the start on. Where the run was not asked with ``stream=True``, or the
        answer was there already, its texts come at the end, one chunk for each output.

        Args:
            timeout: Seconds to wait for the whole of it; None for no limit.

        Yields:
            Chunks; the last one is of the kind ``completed``, and ``get()`` returns at once then.

        Raises:
            celery.exceptions.TimeoutError: If it is not completed in time; the job runs on.
            DspyqError: If the prediction failed; what ``get()`` raises.
        """
        return _listen(self, timeout)

    def astream(self, timeout: float | None = None) -> AsyncIterator[Chunk]:
        """As ``stream``, in an event loop, without a thread of its own."""
        return _listen_in_loop(self, timeout)


def _listen(job: _Job, timeout: float | None) -> Iterator[Chunk]:
    end_at = None if timeout is None else time.monotonic() + timeout
    news = threading.Event()
    listener = Listener(job, news.set)
    try:
        while True:
            news.clear()
            yield from listener.take()
            if listener.is_answered:
                break
            if not news.wait(None if end_at is None else max(0.0, end_at - time.monotonic())):
                raise listener.timed_out(timeout or 0.0)
        yield from listener.complete()
    finally:
        listener.close()


async def _listen_in_loop(job: _Job, timeout_seconds: float | None) -> AsyncIterator[Chunk]:
    loop = asyncio.get_running_loop()
    end_at = None if timeout_seconds is None else loop.time() + timeout_seconds
    news = asyncio.Event()
    listener = Listener(job, lambda: loop.call_soon_threadsafe(news.set))
    try:
        while True:
            news.clear()
            for chunk in listener.take():
                yield chunk
            if listener.is_answered:
                break
            try:
                async with asyncio.timeout_at(end_at):
                    await news.wait()
            except TimeoutError:
                raise await off_loop(listener.timed_out, timeout_seconds or 0.0) from None
        for chunk in listener.complete():
            yield chunk
    finally:
        listener.close()


class Listener:
    """One listener of a prediction's stream.

    Args:
        job: The handle.
        wake: Called from any thread when there is something to take.
        is_sent: As of ``Waiter.add``; the handle's own where left out.

    Attributes:
        position: The place in the log up to which it was taken.
    """

    __slots__ = (
        "_is_answered", "_job", "_log", "_payload", "_taken", "_view", "_waiter", "_wake", "_was_known", "position",
    )  # fmt: skip

    def __init__(self, job: _Job, wake: Callable[[], object], *, is_sent: bool | None = None) -> None:
        self._job = job
        self._wake = wake
        self._view = ListenerView()
        self.position = 0
        self._taken = 0
        self._payload: bytes | None = None
        self._was_known: bool = job.is_known
        self._is_answered: bool = self._was_known
        if self._was_known:
            return
        with job.runtime.active():
            find_runs([job.id])
        with job.runtime.active(), on_spine(job.id):
            self._waiter = process_waiter()
            self._log = self._waiter.streams.follow(job.id, wake)
            self._waiter.add(
                job.id, self._receive, is_sent=job.is_sent if is_sent is None else is_sent, asked_at=job.asked_at
            )
            self._waiter.wake_up()

    @property
    def is_answered(self) -> bool:
        """True once the answer is there, and all of the log that comes before it was taken."""
        return self._is_answered

    def take(self) -> list[Chunk]:
        """Return what has come since."""
        if self._was_known:
            return []
        has_answer = self._payload is not None and self._log.is_read  # looked at first: the log is whole by then
        chunks: list[Chunk] = []
        while self._taken < len(self._log.frames):
            frame, self.position = self._log.frames[self._taken]
            self._taken += 1
            chunks += self._view.chunks_of(frame, self.position)
        self._is_answered = has_answer
        return chunks

    def complete(self) -> Iterator[Chunk]:
        """Yield the rest, once the answer is there.

        Raises:
            DspyqError: If the prediction failed.
        """
        if self._payload is not None:
            self._job.receive(self._payload)
        prediction: Prediction = self._job.get(disable_sync_subtasks=False)
        with self._job.runtime.active():
            fields = _streamed_fields(self._job, prediction)
        yield from self._view.complete(prediction.outputs, fields)

    def timed_out(self, seconds: float) -> CeleryTimeoutError:
        """Return the error of a stream that was not completed in time."""
        with self._job.runtime.active():
            error: CeleryTimeoutError = timed_out(self._job.id, seconds)
        return error

    def close(self) -> None:
        """Listen no more."""
        if not self._was_known:
            self._waiter.streams.leave(self._log, self._wake)
            self._waiter.remove(self._job.id, self._receive)

    def _receive(self, payload: bytes) -> None:
        self._payload = payload
        self._wake()


def _streamed_fields(job: _Job, prediction: Prediction) -> tuple[str, ...]:
    """Return the outputs whose texts come by stream."""
    name = prediction.metadata.program
    program: Any = job.request.program if job.request else get_settings().programs.get(name)
    if program is None:  # of another configuration
        return tuple(field for field, value in prediction.outputs.items() if isinstance(value, str))
    served: Any = program.as_served(prediction.metadata.variant)
    return tuple(served.streamed_fields)
