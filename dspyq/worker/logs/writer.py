"""Log writer: accepts entries from any thread and writes them in its own, so that a slow reader blocks no one."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from logging.handlers import WatchedFileHandler

from dspyq.core.runtime import after_fork
from dspyq.core.tolerated import survived
from dspyq.worker.logs.render import LogEntry, Render, entry_of

#: Most entries that wait to be written; further ones are dropped and counted.
CAPACITY = 10_000
#: Entries written at once, and wait for further ones: a wake-up for each would cost more than writing it.
_MOST_AT_ONCE = 1_000
_GATHER_SECONDS = 0.1

Dropped = Callable[[int], None]


class Writer(logging.Handler):
    """The only handler of the root logger.

    Args:
        target: Celery's target: standard error, or the file of ``celery worker -f``.
        render: Function that renders an entry as a line.
        count_dropped: Callback for the number of dropped entries.
        push: Callback for written entries, called from the writing thread.

    Attributes:
        dropped: Number of entries that found no room or could not be written.
    """

    def __init__(
        self,
        target: logging.StreamHandler,  # type: ignore[type-arg]  # of whatever stream
        render: Render,
        *,
        count_dropped: Dropped = lambda _: None,
        push: Callable[[Iterable[LogEntry]], object] = lambda _: None,
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
        after_fork(self._begin)

    def handle(self, record: logging.LogRecord) -> bool:
        """Handle a record without the usual lock of handlers, which the queue does not need."""
        if is_wanted := bool(self.filter(record)):
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        if self._entries.qsize() >= CAPACITY:
            self._drop(1)
            return
        try:
            self._entries.put(entry_of(record))
        except Exception as error:  # noqa: BLE001 - an argument whose __str__ fails; Python would print the traceback
            self._entries.put(_remark("log_record_failed", error=type(error).__name__, logger=record.name))

    def flush(self, timeout_seconds: float = 0.0) -> None:
        """Wait until the records queued so far are written, within the given time."""
        if timeout_seconds and self._thread.is_alive():
            written = threading.Event()
            self._entries.put(written)
            written.wait(timeout_seconds)

    def _begin(self) -> None:
        """Start the writing thread; a forked child starts its own, and its parent writes the entries queued before."""
        self._entries: queue.SimpleQueue[LogEntry | threading.Event] = queue.SimpleQueue()
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
            with survived("log_thread"):
                self._write([*entries, *self._remarks()])
            for each in taken:
                if isinstance(each, threading.Event):
                    each.set()

    def _write(self, entries: list[LogEntry]) -> None:
        if not entries:
            return
        try:
            _write_whole(self._target, "".join(self._lines(entries)))
        except Exception:  # noqa: BLE001 - the reader is gone, or the disk full; no log is left for it
            self._drop(len(entries))
        self._push(entries)

    def _lines(self, entries: Iterable[LogEntry]) -> Iterator[str]:
        for entry in entries:
            try:
                yield f"{self._render(entry)}\n"
            except Exception:  # noqa: BLE001 - one entry must not stop the others
                self._drop(1)

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count
        self._count_dropped(count)

    def _remarks(self) -> list[LogEntry]:
        """Return an entry with the number of dropped ones, once there is room again."""
        dropped = self.dropped
        if dropped == self._reported or self._entries.qsize() >= CAPACITY // 2:
            return []
        number, self._reported = dropped - self._reported, dropped
        return [_remark("log_entries_dropped", entries=number)]


def _remark(event: str, **fields: object) -> LogEntry:
    return {"timestamp": time.time(), "level": "warning", "event": event, **fields}


def _write_whole(target: logging.StreamHandler, text: str) -> None:  # type: ignore[type-arg]  # of whatever stream
    """Write without the stream's buffer: its lock, held here while a reader stalls, would block Python's exit."""
    if isinstance(target, WatchedFileHandler):
        target.reopenIfNeeded()
    left, descriptor = memoryview(text.encode(errors="backslashreplace")), target.stream.fileno()
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:
            poller = select.poll()  # select() takes no file beyond the 1,024th
            poller.register(descriptor, select.POLLOUT)
            poller.poll(1000)
