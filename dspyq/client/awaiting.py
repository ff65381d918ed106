"""Awaitable forms of ``predict``. None blocks the event loop: calls of Redis run in threads."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Unpack, overload

from dspyq.client.asking import process_asker
from dspyq.client.off_loop import off_loop, off_loop_in_time, soon
from dspyq.client.result import PredictionResult
from dspyq.core.runtime import in_own_runtime
from dspyq.core.tolerated import survived
from dspyq.errors import InvalidInputs, InvalidOption
from dspyq.prediction.options import PREDICT_OPTIONS, ManyOptions
from dspyq.prediction.prediction import Prediction
from dspyq.prediction.request import Request, build_request

_ASK_OPTIONS = PREDICT_OPTIONS | {"priority"}


class Awaitable:
    """Forms of ``predict`` for event loops, built on its blocking forms."""

    def apply_async(
        self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> PredictionResult:
        """Request a prediction, with options."""
        raise NotImplementedError

    def many(self, rows: Iterable[Mapping[str, Any]], **options: Unpack[ManyOptions]) -> list[PredictionResult]:
        """Request many predictions at once."""
        raise NotImplementedError

    def _check_options(self, options: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @in_own_runtime
    async def ask(self, inputs: Mapping[str, Any] | None = None, /, **given: Any) -> Prediction:
        """Request a prediction and wait for it.

        ``await predict.ask(question="…")`` takes only the program's input fields. The other form takes
        options too: ``await predict.ask({"question": "…"}, program="qa", unit="user-42")``.

        Cancelling the await withdraws this caller, as ``job.cancel()`` does: the job ends with its last caller.

        Args:
            inputs: The program's input fields, where ``given`` are options.
            **given: The input fields; after ``inputs``, the options ``program``, ``variant``, ``unit``, ``refresh``,
                ``tenant``, ``request_id`` and ``priority``, as of ``apply_async``.

        Raises:
            InvalidRequest: If it can never be served; nothing is sent.
            RedisUnavailable: If Redis does not answer.
            DspyqError: If the prediction fails.
        """
        request, options = self._read(inputs, given)
        job = await _ask(request, options)
        try:
            return await job
        except asyncio.CancelledError:
            _soon(job.cancel)
            raise

    @overload
    async def ask_many(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        return_exceptions: Literal[False] = False,
        **options: Unpack[ManyOptions],
    ) -> list[Prediction]: ...

    @overload
    async def ask_many(
        self, rows: Iterable[Mapping[str, Any]], *, return_exceptions: Literal[True], **options: Unpack[ManyOptions]
    ) -> list[Prediction | BaseException]: ...

    @in_own_runtime
    async def ask_many(
        self, rows: Iterable[Mapping[str, Any]], *, return_exceptions: bool = False, **options: Unpack[ManyOptions]
    ) -> list[Any]:
        """Request many predictions at once and wait for all.

        Cancelling the await withdraws this caller from all of them.

        Args:
            rows: The inputs of each prediction.
            return_exceptions: Whether a row that fails has its error in the list; else the first error is raised, and
                the other rows go on and are cached.
            **options: As of ``many``: ``program``, ``variant``, ``unit``, ``refresh``, ``priority``.

        Returns:
            The predictions, in the order of the rows.

        Raises:
            InvalidRequest: If a row can never be served, with its number; then nothing is sent.
            RedisUnavailable: If Redis does not answer; the rows before may have been sent.
            DspyqError: If a prediction fails.
        """
        jobs = await self.amany(rows, **options)
        try:
            return await asyncio.gather(*map(_wait, jobs), return_exceptions=return_exceptions)
        except asyncio.CancelledError:
            _soon(functools.partial(_cancel_all, jobs))
            raise

    @in_own_runtime
    async def adelay(self, /, **inputs: Any) -> PredictionResult:
        """As ``delay``, without blocking the event loop; ``await`` the result to wait for it."""
        return await _ask(build_request(inputs), {})

    @in_own_runtime
    async def aapply_async(
        self, args: Any = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> PredictionResult:
        """As ``apply_async``, without blocking the event loop."""
        if process_asker().is_local:
            return self.apply_async(args, kwargs, **options)
        return await off_loop_in_time(self.apply_async, PredictionResult.cancel, args, kwargs, **options)

    @in_own_runtime
    async def amany(self, rows: Iterable[Mapping[str, Any]], **options: Unpack[ManyOptions]) -> list[PredictionResult]:
        """As ``many``, without blocking the event loop; the rows are taken from their iterable before that."""
        if process_asker().is_local:
            return self.many(rows, **options)
        asked = asyncio.ensure_future(off_loop(self.many, list(rows), **options))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(_cancel_asked)
            raise

    def _read(self, inputs: Mapping[str, Any] | None, given: Mapping[str, Any]) -> tuple[Request, dict[str, Any]]:
        """Return the request, and Celery's options of its call."""
        if inputs is None:
            return build_request(given), {}
        if not isinstance(inputs, Mapping):
            raise InvalidInputs("inputs are passed by name, or as one dict before the options")
        for name in given.keys() - _ASK_OPTIONS:
            raise InvalidOption(
                f"ask has no option {name!r}; after a dict of inputs it takes {', '.join(sorted(_ASK_OPTIONS))}"
            )
        options = {name: value for name, value in given.items() if value is not None}
        priority = {name: options.pop(name) for name in ("priority",) if name in options}
        self._check_options(priority)
        return build_request(inputs, **options), priority


async def _ask(request: Request, options: dict[str, Any]) -> PredictionResult:
    """Answer from memory in the event loop itself; else request it in a thread."""
    asker = process_asker()
    if (hit := asker.find(request)) is not None:
        return hit
    if asker.is_local:
        return asker.ask(request, options)
    return await off_loop_in_time(asker.ask, PredictionResult.cancel, request, options)


def _soon(call: Callable[[], object]) -> None:
    """Make a call without waiting for it."""
    if process_asker().is_local:
        call()
    else:
        soon(call)


async def _wait(job: PredictionResult) -> Prediction:
    return await job


def _cancel_asked(asked: asyncio.Future[list[PredictionResult]]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        _soon(functools.partial(_cancel_all, asked.result()))


def _cancel_all(jobs: Iterable[PredictionResult]) -> None:
    for job in jobs:
        with survived("callback"):
            job.cancel()
