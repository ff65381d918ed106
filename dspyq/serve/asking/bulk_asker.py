"""Questions that this process's memory does not answer: one thread sends all that came meanwhile, in bulk.

So the event loop waits for no round trip, and under load a round trip is shared.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from dspyq.client.asking import process_asker
from dspyq.client.bulk import CHUNK_ROWS
from dspyq.client.off_loop import soon
from dspyq.client.result import PredictionResult
from dspyq.config.settings import get_settings
from dspyq.core.runtime import bound
from dspyq.errors import RedisUnavailable
from dspyq.prediction.request import Request
from dspyq.store.spines import Spines
from dspyq.tracing.propagation import trace_headers

_HandleOrError = PredictionResult | BaseException


class _QueuedQuestion:
    """A question on its way to Redis."""

    __slots__ = ("answer", "call_id", "context", "is_left", "priority", "request", "trace")

    def __init__(self, request: Request, call_id: str, priority: int, answer: asyncio.Future[PredictionResult]) -> None:
        self.request = request
        self.call_id = call_id
        self.priority = priority
        self.answer = answer
        self.trace: Mapping[str, str] = trace_headers()
        self.context = contextvars.copy_context()
        self.is_left = False


class _Alike(NamedTuple):
    """Properties that the questions of one bulk share; messages carry the trace of the thread that makes them."""

    priority: int
    trace: tuple[tuple[str, str], ...]


class BulkAsker:
    """Sends questions of an event loop from one thread of its own, which ends with the process."""

    def __init__(self) -> None:
        self._questions: deque[_QueuedQuestion] = deque()
        self._has_some = threading.Event()
        self._thread: threading.Thread | None = None

    async def ask(self, request: Request, call_id: str, priority: int) -> PredictionResult:
        """Look a question up, join its run, or begin one.

        Args:
            request: The question.
            call_id: The task's id, should it begin one; the experiment's name of the call in any case.
            priority: Its turn, 0 (most urgent) to 9.

        Raises:
            RedisUnavailable: If Redis does not answer within ``redis_timeout_seconds``; what it does later is undone.
            DspyqError: If the question is refused.
        """
        loop = asyncio.get_running_loop()
        question = _QueuedQuestion(request, call_id, priority, loop.create_future())
        self._questions.append(question)
        if self._thread is None:
            self._thread = threading.Thread(target=bound(self._run), args=(loop,), name="dspyq-door", daemon=True)
            self._thread.start()
        self._has_some.set()
        seconds = get_settings().redis_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await question.answer
        except TimeoutError:
            question.is_left = True
            raise RedisUnavailable(
                f"Redis has not answered within redis_timeout_seconds, {seconds:g} s: check DSPYQ_REDIS_URL"
            ) from None
        except asyncio.CancelledError:
            question.is_left = True
            raise

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            self._has_some.wait()
            self._has_some.clear()
            while self._questions:
                taken = [self._questions.popleft() for _ in range(min(CHUNK_ROWS, len(self._questions)))]
                for alike in _groups(question for question in taken if not question.is_left):
                    outcomes = _ask_alike(alike)
                    if not _call_soon(loop, _settle, list(zip(alike, outcomes, strict=True))):
                        return


class AskersOfSpines:
    """Sends the questions of each spine by itself, so that one that does not answer holds up no other.

    Args:
        spines: The spines.
    """

    def __init__(self, spines: Spines) -> None:
        self._spines = spines
        self._askers = [BulkAsker() for _ in spines.all]

    async def ask(self, request: Request, call_id: str, priority: int) -> PredictionResult:
        """Ask a question; see ``BulkAsker.ask``."""
        return await self._askers[self._spines.of(request.input_hash).number].ask(request, call_id, priority)


def _groups(questions: Iterable[_QueuedQuestion]) -> Iterable[list[_QueuedQuestion]]:
    groups: dict[_Alike, list[_QueuedQuestion]] = {}
    for question in questions:
        alike = _Alike(question.priority, tuple(question.trace.items()))
        groups.setdefault(alike, []).append(question)
    return groups.values()


def _ask_alike(questions: list[_QueuedQuestion]) -> list[_HandleOrError]:
    """Ask questions of one priority and trace; where one is refused, each by itself, so that the others are asked."""
    first = questions[0]
    requests = [question.request for question in questions]
    call_ids = [question.call_id for question in questions]
    try:
        # A context of one of them has the trace of all.
        return list(first.context.run(process_asker().ask_many, requests, first.priority, call_ids))
    except RedisUnavailable as error:
        return [error] * len(questions)
    except Exception as error:  # noqa: BLE001 - every caller of this process depends on this thread
        if len(questions) == 1:
            return [error]
        return [outcome for question in questions for outcome in _ask_alike([question])]


def _settle(asked: list[tuple[_QueuedQuestion, _HandleOrError]]) -> None:
    for question, outcome in asked:
        if question.is_left or question.answer.done():
            if isinstance(outcome, PredictionResult):
                soon(outcome.cancel)
        elif isinstance(outcome, PredictionResult):
            question.answer.set_result(outcome)
        else:
            question.answer.set_exception(outcome)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> bool:
    """Make a call in an event loop; return False if the loop has ended."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        return False
    return True
