"""Takes log records from any thread at once and writes them in one of its own: nobody waits for who reads them."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable
from logging.handlers import WatchedFileHandler

from dspyq.worker.logs.render import Entry, Render, entry_of

#: Entries that wait to be written; what comes beyond is dropped, and counted.
CAPACITY = 10_000
#: So many are written at once, and so long is waited for others: waking up for each would cost more than writing it.
_MOST_AT_ONCE = 1_000
_GATHER_SECONDS = 0.1

Dropped = Callable[[int], None]


class Writer(logging.Handler):
    """The one handler of the root logger.

    Args:
        target: Where Celery would write: standard error, or the file of ``celery worker -f``.
        render: What makes lines of entries.
        count_dropped: Told of entries that were dropped.
        push: Told of entries that were written, from the writing thread.

    Attributes:
        dropped: How many entries found no room, or could not be written.
    """

    def __init__(
        self,
        target: logging.StreamHandler,  # type: ignore[type-arg]  # of whatever stream
        render: Render,
        *,
        count_dropped: Dropped = lambda _: None,
        push: Callable[[Iterable[Entry]], object] = lambda _: None,
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._target = target
        self._render = render
        self._count_dropped = count_dropped
        self._push = push
        self._reported = 0
        self._counting = threading.Lock()
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, without the lock that a handler has otherwise: the queue needs none."""
        if is_wanted := bool(self.filter(record)):
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        if self._entries.qsize() >= CAPACITY:
            self._drop(1)
            return
        try:
            self._entries.put(entry_of(record))
        except Exception as error:  # noqa: BLE001 - an argument that fails to say what it is; Python would print it
            self._entries.put(_remark("log_record_failed", error=type(error).__name__, logger=record.name))

    def flush(self, timeout_seconds: float = 0.0) -> None:
        """Wait for what was taken so far to be written, so long at most."""
        if timeout_seconds and self._thread.is_alive():
            written = threading.Event()
            self._entries.put(written)
            written.wait(timeout_seconds)

    def _begin(self) -> None:
        """Start writing; in a forked child, anew: it has no thread, and its parent writes what had waited."""
        self._entries: queue.SimpleQueue[Entry | threading.Event] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dspyq-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            taken = [self._entries.get()]
            if not isinstance(taken[0], threading.Event):
                time.sleep(_GATHER_SECONDS)
            with contextlib.suppress(queue.Empty):
                while len(taken) < _MOST_AT_ONCE:
                    taken.append(self._entries.get_nowait())
            entries = [each for each in taken if not isinstance(each, threading.Event)]
            self._write([*entries, *self._remarks()])
            for each in taken:
                if isinstance(each, threading.Event):
                    each.set()

    def _write(self, entries: list[Entry]) -> None:
        if not entries:
            return
        try:
            _write_whole(self._target, "".join(f"{self._render(entry)}\n" for entry in entries))
        except Exception:  # noqa: BLE001 - the reader is gone, or the disk full; there is no log to say so in
            self._drop(len(entries))
        self._push(entries)

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count
        self._count_dropped(count)

    def _remarks(self) -> list[Entry]:
        """Say what was dropped, once there is room again."""
        dropped = self.dropped
        if dropped == self._reported or self._entries.qsize() >= CAPACITY // 2:
            return []
        number, self._reported = dropped - self._reported, dropped
        return [_remark("log_entries_dropped", entries=number)]


def _remark(event: str, **fields: object) -> Entry:
    return {"timestamp": time.time(), "level": "warning", "event": event, **fields}


def _write_whole(target: logging.StreamHandler, text: str) -> None:  # type: ignore[type-arg]  # of whatever stream
    """Write past the stream's own buffer: its lock, held here for as long as nobody reads, would keep Python's end."""
    if isinstance(target, WatchedFileHandler):
        target.reopenIfNeeded()
    left, descriptor = memoryview(text.encode(errors="backslashreplace")), target.stream.fileno()
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            select.select((), (descriptor,), (), 1.0)
