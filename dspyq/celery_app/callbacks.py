"""A thread for callbacks of results, so that slow user code delays no answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from dspyq.core.runtime import bound, per_runtime
from dspyq.core.tolerated import tolerate


class Callbacks:
    """Runs calls one after another in a thread that survives their errors."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        threading.Thread(target=bound(self._run), name="dspyq-callbacks", daemon=True).start()

    def run(self, call: Callable[[], object]) -> None:
        """Run a call soon; this never waits."""
        self._waiting.put(call)

    def close(self) -> None:
        """End the thread after the calls before this one."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - it is a user's code
                tolerate("callback", error, is_fault=True)
            del call  # else the last one's result would live until the next


def call_back(callback: Callable[[bytes], object], result: bytes) -> None:
    """Call a waiter's callback with a stored result, here and now; it survives the callback's errors."""
    try:
        callback(result)
    except BaseException as error:  # noqa: BLE001 - a closed event loop, or whatever a user's callback raises
        tolerate("callback", error, is_fault=True)


@per_runtime(close=Callbacks.close)
def process_callbacks() -> Callbacks:
    """Return this process's callbacks; a forked child gets its own."""
    return Callbacks()
