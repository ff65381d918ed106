"""Handles of predictions that a test answers, and the jobs behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from vine import barrier

from dspyq.cache.lost_result import REVOKED_RESULT
from dspyq.client.result import PredictionResult
from dspyq.errors import AnswerLost
from dspyq.prediction.prediction import Prediction
from dspyq.streaming.chunks import Chunk


@dataclass
class LocalJob:
    """A job with a known answer, due at some time.

    Attributes:
        payload: The stored result; None for an unknown task id.
        due_at: The monotonic second at which it is available.
        sleeps: Whether waiting takes real time; else a wait that is long enough returns at once.
        on_cancel: Called when its last caller withdraws.
    """

    payload: bytes | None = None
    due_at: float = 0.0
    sleeps: bool = False
    on_cancel: Callable[[], object] | None = None

    @property
    def seconds_left(self) -> float:
        """The seconds until it is due."""
        return max(0.0, self.due_at - time.monotonic())

    @property
    def is_done(self) -> bool:
        """True once its result is there."""
        return self.payload is not None and not self.seconds_left

    def cancel(self) -> bool:
        """End it, unless it is done."""
        if self.payload is None or self.is_done:
            return False
        self.payload, self.due_at = REVOKED_RESULT, 0.0
        if self.on_cancel is not None:
            self.on_cancel()
        return True


class LocalResult(PredictionResult):
    """A handle that needs no Redis."""

    job: LocalJob
    _is_kept = False  # a test's answer is no other caller's

    @classmethod
    def of_job(cls, job: LocalJob, task_id: str) -> LocalResult:
        """Return a handle of a job."""
        handle = cls(task_id)
        handle.job = job
        return handle

    def get(self, timeout: float | None = None, *args: Any, **options: Any) -> Prediction:
        """Return the prediction; the arguments are those of ``PredictionResult.get``."""
        self._wait_until(timeout)
        return super().get(timeout, *args, **options)

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Call back with this result now, as if its time had passed.

        A group that this is a member of is no such caller: it waits in ``get``.
        """
        weak = weak or isinstance(callback, barrier)
        if not weak:
            self._wait_until(None)
        return super().then(callback, on_error, weak)

    def stream(self, timeout: float | None = None) -> Iterator[Chunk]:
        """Yield the prediction's texts, one chunk for each output; the arguments are those of ``PredictionResult``."""
        self._wait_until(timeout)
        yield from super().stream(timeout)

    async def astream(self, timeout: float | None = None) -> AsyncIterator[Chunk]:  # noqa: ASYNC109 - as its base
        """As ``stream``, in an event loop."""
        left = self.job.seconds_left
        if self.job.sleeps and left:
            await asyncio.sleep(left if timeout is None else min(left, timeout))
        self._wait_until(timeout)
        async for chunk in super().astream(timeout):
            yield chunk

    def cancel(self) -> bool:
        """Withdraw this caller, which ends the job unless it is done."""
        return self.job.cancel()

    async def acancel(self) -> bool:
        """As ``cancel``."""
        return self.cancel()

    def revoke(self, *_: Any, **__: Any) -> None:
        """End the job, unless it is done."""
        self.cancel()

    def forget(self) -> None:
        """Forget the result: nothing brings it any more."""
        self.job.payload = self._payload = self._cache = None

    @property
    def payload(self) -> bytes | None:
        """The stored result. A group that waits for its members reads this."""
        self._wait_until(None)
        return self._payload

    async def _wait(self) -> Prediction:
        if self.job.sleeps:
            await asyncio.sleep(self.job.seconds_left)
        self._wait_until(None)
        return self.get(disable_sync_subtasks=False)

    def _wait_until(self, timeout: float | None) -> None:
        """Wait for the job's time, or the timeout.

        Raises:
            celery.exceptions.TimeoutError: If the timeout is shorter.
            AnswerLost: If the task id is unknown.
        """
        job = self.job
        if job.payload is None:
            _raise_unknown(timeout)
        left = job.seconds_left
        is_late = timeout is not None and timeout < left
        if job.sleeps and left:
            time.sleep(left if timeout is None else min(left, timeout))
        if is_late:
            raise CeleryTimeoutError(f"no answer within {timeout:g} s; the prediction goes on")
        job.due_at, self._payload = 0.0, job.payload

    def _get_task_meta(self) -> Any:
        if self._cache is None and not self.job.is_done:
            return {"status": states.PENDING, "result": None, "traceback": None, "children": []}
        if self._payload is None:
            self._payload = self.job.payload
        return super()._get_task_meta()


def _raise_unknown(timeout: float | None) -> NoReturn:
    if timeout is not None:
        raise CeleryTimeoutError(f"no answer within {timeout:g} s: nothing was asked under this task id in this test")
    raise AnswerLost("nothing was asked under this task id in this test, so waiting for it would never end")
