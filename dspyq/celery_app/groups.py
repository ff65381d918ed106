"""Waits for results, one or a group's: the process's waiter waits for all, and forgets them once they have arrived."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from celery.result import AsyncResult, GroupResult

from dspyq.cache.moves import find_runs, is_to_find
from dspyq.celery_app.callbacks import process_callbacks
from dspyq.celery_app.waiting import Waiter, process_waiter
from dspyq.core.runtime import Runtime, after_fork, current
from dspyq.store.spines import on_result

#: A member, what arrived, and whether that is final.
_Arrived = queue.SimpleQueue[tuple[Any, bytes, bool]]

#: Held to choose the thread that takes a result, never during a callback.
_taking = threading.Lock()


@dataclass(frozen=True, slots=True)
class WaitHooks:
    """A caller's hooks into a wait.

    Attributes:
        on_message: Called with each result that was not there at once, and with each state before it that is published.
        on_interval: Called repeatedly while no result arrives.
        interval_seconds: The seconds between two calls of ``on_interval``.
    """

    on_message: Callable[[dict[str, Any]], object] | None = None
    on_interval: Callable[[], object] | None = None
    interval_seconds: float = 0.5


class OwnTaskResult(AsyncResult):  # type: ignore[misc]  # celery ships no types
    """Celery's result of a user's own task."""

    _is_listening = False

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """Call back when the result is available, in a thread for callbacks if no caller waits for it."""
        chained = self.on_ready.then(callback, on_error)
        if not weak and not self._is_listening and not self._cache:
            self._is_listening = True
            _waiter_of(self).add(self.id, self._receive_later)
        return chained

    def _receive_later(self, payload: bytes) -> None:
        process_callbacks().run(functools.partial(_take, self.backend, self, payload))


class AwaitableGroup(GroupResult):  # type: ignore[misc]  # celery ships no types
    """Celery's result of a group, also awaitable in an event loop."""

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """Wait in an event loop and return what ``get`` does."""
        return self._wait().__await__()

    async def _wait(self) -> list[Any]:
        await asyncio.gather(*(_arrival(member) for member in _members(self.results)))
        results: list[Any] = self.get(disable_sync_subtasks=False)
        return results


def arrivals(
    backend: Any,
    results: Iterable[Any],
    *,
    timeout: float | None,
    late: Callable[[list[Any]], Exception],
    hooks: WaitHooks,
) -> Iterator[tuple[str, Any]]:
    """Yield members as their results arrive: each one's id and stored result, or results if it is a group.

    Args:
        backend: The result backend, which decodes stored results.
        results: The members.
        timeout: The seconds to wait for all of them; None for no limit.
        late: Returns the error to raise if they do not come in time; it gets those missing.
        hooks: The caller's hooks.
    """
    end_at = None if timeout is None else time.monotonic() + timeout
    arrived: _Arrived = queue.SimpleQueue()
    members = list(results)
    with backend.runtime.active():
        find_runs(member.id for member in members if hasattr(member, "_cache"))
    waiting: dict[int, tuple[Any, Callable[[bytes], None]]] = {}
    try:
        for member in members:
            if hasattr(member, "_cache") and not _is_known(member):
                waiting[id(member)] = member, functools.partial(_put, arrived, member, is_final=True)
                _waiter_of(member).add(
                    member.id,
                    waiting[id(member)][1],
                    **_known_of(member),
                    on_state=functools.partial(_put, arrived, member, is_final=False) if hooks.on_message else None,
                )
        yield from (_known(member) for member in members if id(member) not in waiting)
        while waiting:
            try:
                member, payload, is_final = _next(arrived, end_at, hooks)
            except queue.Empty:
                raise late([member for member, _ in waiting.values()]) from None
            if is_final:
                del waiting[id(member)]
                _take(backend, member, payload)
            if hooks.on_message:
                hooks.on_message(_known(member)[1] if is_final else backend.decode_result(payload))
            if is_final:
                yield _known(member)
    finally:
        for member, callback in waiting.values():
            _waiter_of(member).remove(member.id, callback)


def _next(arrived: _Arrived, end_at: float | None, hooks: WaitHooks) -> tuple[Any, bytes, bool]:
    """Wait for a member's result, or a state before it.

    Raises:
        queue.Empty: If none comes in time.
    """
    while True:
        left = None if end_at is None else max(0.0, end_at - time.monotonic())
        pause = hooks.interval_seconds if hooks.on_interval else None
        known = [seconds for seconds in (left, pause) if seconds is not None]
        try:
            return arrived.get(timeout=min(known, default=None))
        except queue.Empty:
            if end_at is not None and time.monotonic() >= end_at:
                raise
        if hooks.on_interval:
            hooks.on_interval()


def _put(arrived: _Arrived, member: Any, payload: bytes, *, is_final: bool) -> None:
    arrived.put((member, payload, is_final))


def _is_known(member: Any) -> bool:
    return bool(member._cache) or getattr(member, "payload", None) is not None  # noqa: SLF001 - as Celery itself does


def _known(member: Any) -> tuple[str, Any]:
    if not hasattr(member, "_cache"):  # a nested group
        return member.id, member.children
    return member.id, member._get_task_meta()  # noqa: SLF001 - Celery has no other name for it


def _known_of(member: Any) -> dict[str, Any]:
    """Return what a handle states of its task's job, to the waiter."""
    return (
        {"is_sent": member.is_sent, "asked_at": member.asked_at} if hasattr(member, "asked_at") else {"is_sent": False}
    )


def _take(backend: Any, member: Any, payload: bytes) -> None:
    """Give a member its result, and call its callbacks unless another thread has."""
    if hasattr(member, "receive"):
        member.receive(payload)
        return
    meta = backend.decode_result(payload)
    with _taking:
        if member._cache:  # noqa: SLF001 - as above
            return
        member._set_cache(meta)  # noqa: SLF001 - as above
    member.on_ready(member)


def _members(results: Iterable[Any]) -> Iterator[Any]:
    """Yield the members of a group and of its nested groups."""
    for result in results:
        if hasattr(result, "_cache"):
            yield result
        else:
            yield from _members(result.results)


async def _arrival(member: Any) -> None:
    """Wait until a member has its result."""
    if _is_known(member):
        return
    with _runtime_of(member).active():
        if is_to_find(member.id):
            await asyncio.to_thread(find_runs, [member.id])
        payload = await arrival(member.id, **_known_of(member))
    _take(member.backend, member, payload)


async def arrival(task_id: str, *, is_sent: bool, asked_at: float, question: str = "") -> bytes:
    """Wait in an event loop for a stored result, without a thread of its own.

    Args:
        task_id: The task.
        is_sent: As of ``Waiter.add``.
        asked_at: As of ``Waiter.add``.
        question: As of ``Waiter.add``.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bytes] = loop.create_future()

    def settle(payload: bytes) -> None:
        if not ready.done():
            ready.set_result(payload)

    def receive(payload: bytes) -> None:
        loop.call_soon_threadsafe(settle, payload)

    with on_result(task_id):
        waiter = process_waiter()
    waiter.add(task_id, receive, is_sent=is_sent, asked_at=asked_at, question=question)
    try:
        return await ready
    finally:
        waiter.remove(task_id, receive)


def _runtime_of(result: Any) -> Runtime:
    """Return the runtime that a result was asked for with; that of now for one of an application that has none."""
    return getattr(result.app, "runtime", None) or current()


def _waiter_of(result: Any) -> Waiter:
    with _runtime_of(result).active(), on_result(result.id):
        return process_waiter()


def _renew_lock() -> None:
    global _taking  # noqa: PLW0603 - a forked child's parent may hold it
    _taking = threading.Lock()


after_fork(_renew_lock)
