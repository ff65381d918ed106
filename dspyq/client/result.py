"""What ``predict.delay()`` returns: a Celery ``AsyncResult`` whose value is this caller's own ``Prediction``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from functools import cached_property
from typing import Any

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, assert_will_not_block
from vine import promise

from dspyq.cache.claims import process_claims
from dspyq.cache.memory import process_cache
from dspyq.celery_app.application import app as predictions_app
from dspyq.celery_app.waiting import process_waiter, read_meta
from dspyq.core.money import to_nano_usd
from dspyq.errors import NotAPrediction
from dspyq.prediction.prediction import Asker, CacheLevel, Prediction, from_json, is_prediction
from dspyq.prediction.request import Request
from dspyq.store.clients import redis_errors


class PredictionResult(AsyncResult):  # type: ignore[misc]  # celery ships no types
    """A prediction that is there or to come.

    ``get()`` blocks a thread until it is there and returns a ``Prediction``; ``await`` does the same in an event loop.

    Attributes:
        request: What was asked, where this process asked it.
        cache_level: How this call came to its answer; None when it began the run itself.
        is_shared: Whether other calls of the question may have this task's id too.
    """

    app = predictions_app
    parent = None
    request: Request | None = None
    cache_level: CacheLevel | None = None
    is_shared = False
    _cache = None
    _ignored = False
    _payload: bytes | None = None
    _asked_at = 0.0
    _milliseconds_left: int | None = None

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        backend: Any = None,
        task_name: str | None = None,
        app: Any = None,
        parent: Any = None,
    ) -> None:
        # Celery's own __init__ looks the backend up and builds a promise, which an answer from the cache never needs.
        del task_name
        self.id = id
        if app is not None:
            self.app = app
        if parent is not None:
            self.parent = parent
        if backend is not None:
            self.backend = backend

    @classmethod
    def of_request(  # noqa: PLR0913 - what a handle knows of its call
        cls,
        request: Request,
        task_id: str,
        *,
        asked_at: float,
        cache_level: CacheLevel | None = None,
        payload: bytes | None = None,
        milliseconds_left: int | None = None,
    ) -> PredictionResult:
        """Return the handle of one call.

        Args:
            request: What was asked.
            task_id: The task that answered or answers it.
            asked_at: The monotonic second at which the cache was asked.
            cache_level: Where an answer comes from that this call did not cause.
            payload: The stored result, where it is there already.
            milliseconds_left: How long Redis serves it, where Redis said so.
        """
        handle = cls(task_id)
        handle.request = request
        handle.is_shared = True
        handle.cache_level = cache_level
        handle._payload = payload
        handle._asked_at = asked_at
        handle._milliseconds_left = milliseconds_left
        return handle

    @cached_property
    def backend(self) -> Any:
        """The result backend."""
        return self.app.backend

    @cached_property
    def on_ready(self) -> Any:
        """The promise of the result, kept by Celery's own ways of waiting."""
        return promise(self._on_fulfilled, weak=True)

    def get(  # noqa: D417, PLR0913, PLR0917 - Celery's signature, documented there
        self,
        timeout: float | None = None,
        propagate: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        follow_parents: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        callback: Any = None,
        on_message: Any = None,
        on_interval: Any = None,
        disable_sync_subtasks: bool = True,  # noqa: FBT001, FBT002 - Celery's signature
        **options: Any,
    ) -> Prediction:
        """Wait for the prediction and return it; the arguments are Celery's.

        Args:
            timeout: Seconds to wait; None waits without end.

        Raises:
            celery.exceptions.TimeoutError: If it is not there in time; the job runs on.
            AnswerLost: If Redis has forgotten the answer, or lost the job; it takes some seconds to be certain.
            DspyqError: What the prediction failed with.
            NotAPrediction: If the result under this task id is something else.
        """
        if self._payload is None and self._cache is None:
            if disable_sync_subtasks:
                assert_will_not_block()
            if (follow_parents and self.parent) or on_message or on_interval:
                with redis_errors("wait for the prediction"):
                    value = super().get(
                        timeout=timeout,
                        propagate=propagate,
                        interval=interval,
                        no_ack=no_ack,
                        follow_parents=follow_parents,
                        callback=callback,
                        on_message=on_message,
                        on_interval=on_interval,
                        disable_sync_subtasks=disable_sync_subtasks,
                        **options,
                    )
                return self._checked(value)
            self._payload = process_waiter().wait(self.id, timeout, is_sent=self._is_sent)
            if self._payload is None:
                raise CeleryTimeoutError(f"no answer within {timeout:g} s; the prediction goes on")
        result = self._get_task_meta()["result"]
        if callback is None and isinstance(result, Prediction):
            return result
        return self._checked(self.maybe_throw(propagate=propagate, callback=callback))

    def __await__(self) -> Generator[Any, None, Prediction]:
        """Wait in an event loop, without a thread of its own."""
        return self._wait().__await__()

    def cancel(self) -> bool:
        """Withdraw this caller's interest; the last one's ends the job.

        Returns:
            Whether the job was ended: False where others wait for it, or it is answered already.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        if self._payload is not None or self.ready():
            return False
        with redis_errors("cancel the prediction"):
            is_own = not self.is_shared
            if self.request and not process_claims().withdraw(self.request, self.id, is_own=is_own):
                return False
            self.app.control.revoke(self.id)
        return True

    def forget(self) -> None:
        """Forget the result; the next caller of this question computes it anew."""
        if self.request is not None:
            process_claims().invalidate([self.request.input_hash])
            process_cache().invalidate(self.request.input_hash)
        self._payload = None
        super().forget()

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Call back when the result is there."""
        if self._payload is not None:
            self._get_task_meta()
            self.on_ready(self)
            return self.on_ready.then(callback, on_error)
        return super().then(callback, on_error, weak=weak)

    def __del__(self) -> None:
        """Stop waiting, where Celery's own consumer waits."""
        if "on_ready" in self.__dict__:
            super().__del__()

    async def _wait(self) -> Prediction:
        if self._payload is None and self._cache is None:
            loop = asyncio.get_running_loop()
            ready: asyncio.Future[bytes] = loop.create_future()

            def settle(payload: bytes) -> None:
                if not ready.done():
                    ready.set_result(payload)

            def receive(payload: bytes) -> None:
                loop.call_soon_threadsafe(settle, payload)

            process_waiter().add(self.id, receive, is_sent=self._is_sent)
            try:
                self._payload = await ready
            finally:
                process_waiter().remove(self.id, receive)
        return self.get(disable_sync_subtasks=False)

    def _get_task_meta(self) -> Any:
        if self._cache is None and self._payload is not None:
            meta = read_meta(self._payload)
            if meta["status"] == states.SUCCESS and is_prediction(meta["result"]):
                cost_usd = meta["result"]["metadata"]["cost_usd"]
                meta["result"] = from_json(meta["result"], self._asker)
                self._remember(meta["result"], cost_usd or 0.0)
            else:
                meta = self.backend.meta_from_decoded(meta)
            return super()._set_cache(meta)
        return super()._get_task_meta()

    @property
    def _is_sent(self) -> bool:
        """Whether this process knows of the task's job: it sent it, or saw it when it asked."""
        return self.request is not None

    @property
    def _asker(self) -> Asker | None:
        if self.request is None or self.cache_level is None:
            return None
        return Asker(self.request.variant.name, self.request.request_id, self.cache_level)

    def _set_cache(self, d: dict[str, Any]) -> dict[str, Any]:
        """Keep what Celery's own ways of waiting bring, as this caller sees it."""
        result = d["result"]
        if (asker := self._asker) and isinstance(result, Prediction) and result.metadata.cache_level is None:
            d["result"] = Prediction(result.outputs, result.metadata.seen_by(asker))
        meta: dict[str, Any] = super()._set_cache(d)
        return meta

    def _remember(self, prediction: Prediction, cost_usd: float) -> None:
        """Keep the answer, and what it cost whoever had it computed, for as long as Redis serves it."""
        request = self.request
        if request is None or self._payload is None or self.cache_level == "memory":
            return
        if self._milliseconds_left is not None:
            seconds_left = self._milliseconds_left / 1000
        else:
            age_seconds = max(0.0, time.time() - prediction.metadata.timestamp)
            seconds_left = request.program.cache_ttl_seconds - age_seconds
        process_cache().put(
            request.input_hash,
            self.id,
            self._payload,
            seconds_left=seconds_left,
            read_at=self._asked_at,
            cost_nano_usd=to_nano_usd(cost_usd),
        )

    def _checked(self, value: Any) -> Prediction:
        if isinstance(value, Prediction) or self.state != states.SUCCESS:
            return value  # type: ignore[no-any-return]  # with propagate=False, Celery returns the error itself
        raise NotAPrediction(f"the result of task {self.id} was not written by a dspyq worker of this version")
