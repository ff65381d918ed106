"""The result of ``predict.delay()``: a Celery ``AsyncResult`` whose value is this caller's own ``Prediction``."""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from celery import states
from celery.result import AsyncResult, assert_will_not_block
from vine import Thenable, promise

from dspyq.cache.claims import process_claims
from dspyq.cache.lost_result import REVOKED_RESULT
from dspyq.cache.memory import FreshAnswer
from dspyq.cache.moves import find_runs, is_to_find
from dspyq.celery_app.application import process_app
from dspyq.celery_app.callbacks import process_callbacks
from dspyq.celery_app.groups import arrival
from dspyq.celery_app.lost_jobs import AwaitedOptions
from dspyq.celery_app.timeouts import timed_out
from dspyq.celery_app.waiting import Waiter, process_waiter
from dspyq.client.exposed import token_of, with_token
from dspyq.client.kept_answers import forget_answer, forget_soon, remember
from dspyq.client.off_loop import off_loop
from dspyq.client.streaming import Streamed
from dspyq.core.money import to_nano_usd
from dspyq.core.runtime import Runtime, after_fork, current, in_own_runtime
from dspyq.core.tolerated import tolerate
from dspyq.errors import AnswerLost, NotAPrediction
from dspyq.prediction.prediction import AnsweredCaller, CacheLevel, Prediction, from_json, is_prediction
from dspyq.prediction.request import Request
from dspyq.prediction.stored import is_unreadable, read_meta
from dspyq.store.clients import redis_errors
from dspyq.store.spines import on_result, on_spine, place_of

#: Held to choose the thread that calls back for a result, never during a callback.
_settling = threading.Lock()
_note_failure = functools.partial(tolerate, "callback", is_fault=True)


class PredictionResult(Streamed, AsyncResult):  # type: ignore[misc]  # celery ships no types
    """A prediction, available or pending.

    ``get()`` blocks a thread until it is available and returns a ``Prediction``; ``await`` does so in an event loop.

    Attributes:
        runtime: The runtime it was asked with, in which its answer is found from any thread or task.
        request: The request, if this process made it.
        cache_level: Source of a shared answer; None if this call began the run itself.
        is_shared: Whether other calls of the question may have this task's id too.
        asked_at: The monotonic second at which this process looked the question up, if it did.
    """

    parent = None
    request: Request | None = None
    cache_level: CacheLevel | None = None
    is_shared = False
    _cache = None
    _ignored = False
    _payload: bytes | None = None
    asked_at = float("-inf")
    _milliseconds_left: int | None = None
    _is_promised = _is_settled = _is_listening = False
    #: Whether this process's memory cache may keep its answer.
    _is_kept = True

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
        self.runtime: Runtime = current()
        if app is not None:
            self.app = app
            self.runtime = getattr(app, "runtime", self.runtime)
        if parent is not None:
            self.parent = parent
        if backend is not None:
            self.backend = backend

    @classmethod
    def of_request(
        cls, request: Request, task_id: str, *, asked_at: float, cache_level: CacheLevel | None = None
    ) -> PredictionResult:
        """Return the handle of one call.

        Args:
            request: The request.
            task_id: The task that answered or answers it.
            asked_at: The monotonic second at which the look-up began.
            cache_level: Source of an answer that this call did not cause.
        """
        handle = cls(task_id)
        handle.request = request
        handle.is_shared = True
        handle.cache_level = cache_level
        handle.asked_at = asked_at
        return handle

    def with_answer(self, payload: bytes, milliseconds_left: int | None = None) -> PredictionResult:
        """Set the stored result, and how long Redis serves it if known; return the handle."""
        self._payload = payload
        self._milliseconds_left = milliseconds_left
        return self

    @functools.cached_property
    def app(self) -> Any:
        """The Celery application."""
        with self.runtime.active():
            return process_app()

    @functools.cached_property
    def backend(self) -> Any:
        """The result backend."""
        return self.app.backend

    @functools.cached_property
    def on_ready(self) -> Any:
        """Promise of the result, fulfilled by Celery's own ways of waiting."""
        self._is_promised = True
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
            timeout: Seconds to wait; None for no limit.

        Raises:
            celery.exceptions.TimeoutError: If it is not there in time; the job runs on. After two seconds and more its
                text states what the job waits for.
            AnswerLost: If Redis has evicted the answer, or lost the job; this takes some seconds to detect.
            DspyqError: If the prediction failed.
            NotAPrediction: If the result under this task id is something else.
        """
        if self.runtime is not current():  # as in_own_runtime has it, without a call of its own
            given = timeout, propagate, interval, no_ack, follow_parents, callback, on_message, on_interval
            with self.runtime.active():
                return self.get(*given, disable_sync_subtasks, **options)
        if self._payload is None and self._cache is None:
            if disable_sync_subtasks:
                assert_will_not_block()
            if (follow_parents and self.parent) or on_message or on_interval:
                with redis_errors("wait for the prediction"):
                    given = timeout, propagate, interval, no_ack, follow_parents, callback, on_message, on_interval
                    value = super().get(*given, disable_sync_subtasks, **options)
                return self._checked(value)
            self._payload = self._waiter.wait(self.id, timeout, **self._awaited)
            if self._payload is None:
                raise timed_out(self.id, timeout or 0.0, self.question)
        result = self._read_meta()["result"]
        if callback is None and isinstance(result, Prediction):
            return result
        return self._checked(self.maybe_throw(propagate=propagate, callback=callback))

    def __await__(self) -> Generator[Any, None, Prediction]:
        """Wait in an event loop, without a thread of its own."""
        return self._wait().__await__()

    @in_own_runtime
    def cancel(self) -> bool:
        """Withdraw this caller; the job ends with its last caller.

        Returns:
            True if the job was ended; False if others wait for it, or it is answered already.

        Raises:
            RedisUnavailable: If Redis does not answer.
        """
        with redis_errors("cancel the prediction"):
            if self._payload is not None or self.ready():
                return False
            with on_spine(place_of(self.question, self.id)):
                if self.request and not process_claims().withdraw(self.request, self.id, is_own=not self.is_shared):
                    return False
                self.app.control.revoke(self.id)
            if self.backend.get(self.backend.get_key_for_task(self.id)) is None:  # this user may not write results
                self._payload = REVOKED_RESULT
        return True

    async def acancel(self) -> bool:
        """As ``cancel``, without blocking the event loop."""
        return await off_loop(self.cancel)

    @in_own_runtime
    def forget(self) -> None:
        """Forget the result; the next call of this question computes it again."""
        if self.request is not None:
            forget_answer(self.request.input_hash)
        self._payload = None
        super().forget()

    @in_own_runtime
    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Call back once, with this result, when it is available.

        If it is available already, or ``get`` fetches it, the call is made at once in that thread; else in a thread for
        callbacks, even if no caller waits.

        Args:
            callback: The function to call.
            on_error: Function to call with the exception of a callback that raises; otherwise it is logged.
            weak: Whether to call back only while a caller waits, as a group's members do for their group.
        """
        chained = callback if isinstance(callback, Thenable) else promise(callback, on_error=on_error or _note_failure)
        if self._payload is not None and self._cache is None:
            self._get_task_meta()
        with _settling:
            if is_pending := not self._is_settled:
                self.on_ready.then(chained)
            begins_to_listen = is_pending and not weak and not self._is_listening
            self._is_listening |= begins_to_listen
        if begins_to_listen:
            self._waiter.add(self.id, self._receive_later, **self._awaited)
        elif not is_pending:
            chained(self)
        return chained

    @in_own_runtime
    def receive(self, payload: bytes) -> None:
        """Take the stored result, unless it is known already."""
        if self._payload is None and self._cache is None:
            self._payload = payload
        self._get_task_meta()

    def __del__(self) -> None:
        """Do nothing: Celery's would look the backend up, which keeps nothing of a handle."""

    @in_own_runtime
    async def _wait(self) -> Prediction:
        if self._payload is None and self._cache is None:
            if is_to_find(self.id):
                await off_loop(find_runs, [self.id])
            self._payload = await arrival(self.id, is_sent=self.is_sent, asked_at=self.asked_at, question=self.question)
        return self.get(disable_sync_subtasks=False)

    def _receive_later(self, payload: bytes) -> None:
        """Take the result outside the waiter's thread, for callbacks run with it."""
        process_callbacks().run(functools.partial(self._receive_and_settle, payload))

    @in_own_runtime
    def _receive_and_settle(self, payload: bytes) -> None:
        try:
            self.receive(payload)
        finally:
            self._settle()  # also if the result cannot be read; get() then raises

    def _settle(self) -> None:
        """Run the callbacks."""
        with _settling:
            is_first, self._is_settled = not self._is_settled, True
        if is_first and self._is_promised:
            try:
                self.on_ready(self)
            except Exception as error:  # noqa: BLE001 - the callback's own error; the result is good
                tolerate("callback", error, is_fault=True)

    def _maybe_set_cache(self, meta: dict[str, Any] | None) -> Any:
        if meta and meta["status"] in states.READY_STATES:
            return self._set_cache(self.backend.meta_from_decoded(meta))
        return meta

    @in_own_runtime
    def _get_task_meta(self) -> Any:
        return self._read_meta()

    def _read_meta(self) -> Any:
        if self._cache is None and self._payload is not None:
            meta = read_meta(self._payload)
            if meta["status"] == states.SUCCESS and is_prediction(meta["result"]):
                return self._read_prediction(meta)
            if meta["status"] == states.SUCCESS or is_unreadable(meta):
                self._forget_damaged()
            return self._set_cache(self.backend.meta_from_decoded(meta))
        return super()._get_task_meta()

    def _read_prediction(self, meta: dict[str, Any]) -> Any:
        """Set a stored prediction as the result, in this caller's view, and keep it in memory."""
        stored, request = meta["result"], self.request
        try:
            prediction = from_json(stored, self._asker, None if request is None else request.program)
        except NotAPrediction:
            self._forget_damaged()
            raise
        meta["result"] = prediction = with_token(prediction, request)
        if request is not None:
            if prediction.metadata.input_hash != request.input_hash:
                return self._set_cache(self._checked_owner(meta))
            if self._is_kept and self.cache_level != "memory":
                cost = to_nano_usd(float(stored["metadata"]["cost_usd"] or 0.0))
                answer = FreshAnswer(self.id, self._payload or b"", 0.0, self.asked_at, cost)
                remember(request, prediction, answer, self._milliseconds_left)
        if meta.get("children"):
            return self._set_cache(meta)
        self._cache = meta  # as by _set_cache, which has nothing else to do here
        self._settle()
        return meta

    def _forget_damaged(self) -> None:
        """Invalidate a damaged result, so that the next call computes it again; drop it from this process's memory."""
        if self.request is not None and self.is_shared:
            forget_soon(self.request.input_hash)

    @property
    @in_own_runtime
    def exposure(self) -> str | None:
        """The token for ``predict.feedback``; None where no experiment counts this call."""
        return token_of(self.request)

    @property
    def payload(self) -> bytes | None:
        """The stored result, where it is known."""
        return self._payload

    @property
    def question(self) -> str:
        """The input hash of its question, where it is known."""
        return "" if self.request is None else self.request.input_hash

    @property
    def _waiter(self) -> Waiter:
        find_runs([self.id])
        with on_result(self.id):
            return process_waiter()

    @property
    def _awaited(self) -> AwaitedOptions:
        return {"is_sent": self.is_sent, "asked_at": self.asked_at, "question": self.question}

    @property
    def is_sent(self) -> bool:
        """True if this process sent the task's job, or found it when it looked the question up."""
        return self.request is not None

    @property
    def _asker(self) -> AnsweredCaller | None:
        request, level = self.request, self.cache_level
        if request is None or level is None:
            return None
        return AnsweredCaller(request.variant.name, request.request_id, level)

    def _set_cache(self, d: dict[str, Any]) -> dict[str, Any]:
        """Keep a result fetched by Celery's own ways of waiting, in this caller's view."""
        d = self._checked_owner(d)
        result = d["result"]
        if (asker := self._asker) and isinstance(result, Prediction) and result.metadata.cache_level is None:
            d["result"] = with_token(replace(result, metadata=result.metadata.seen_by(asker)), self.request)
        try:
            meta: dict[str, Any] = super()._set_cache(d)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            tolerate("result", error)  # children that no Celery wrote
            meta = super()._set_cache({**d, "children": []})
        self._settle()
        return meta

    def _checked_owner(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return a result, or a failure in place of one that answers another question."""
        result = meta["result"]
        answered = result.metadata.input_hash if isinstance(result, Prediction) else meta.get("input_hash")
        if self.request is None or answered in {None, self.request.input_hash}:
            return meta
        error = AnswerLost(
            f"the result under task id {self.id} is another question's, asked later under the same id: ask again, "
            "and give each question a task id of its own, or none"
        )
        return {**meta, "status": states.FAILURE, "result": error}

    def _checked(self, value: Any) -> Prediction:
        if isinstance(value, Prediction) or self.state != states.SUCCESS:
            return value  # type: ignore[no-any-return]  # with propagate=False, Celery returns the error itself
        raise NotAPrediction(f"the result of task {self.id} was not written by a dspyq worker of this version")


def _renew_lock() -> None:
    global _settling  # noqa: PLW0603 - a forked child's parent may hold it
    _settling = threading.Lock()


after_fork(_renew_lock)
