"""Logs of streams that this process follows, as far as they have come; kept up to date by the process's waiter.

Any number of listeners read one copy, each from a place of its own, so that a slow one loses nothing. A log that is no
longer followed is dropped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import redis
from redis.client import PubSub

from dspyq.core.tolerated import tolerate
from dspyq.store.content import UnreadableContent
from dspyq.store.keys import stream_key
from dspyq.store.scripts import command_step, run_together
from dspyq.streaming.frames import Frame, read_entries

#: A message is lost with a connection alone, after which all is read. This is for what no one foresees.
_READ_AGAIN_SECONDS = 5.0
#: Called when a log has grown, from the waiter's thread.
Wake = Callable[[], object]


class HeardLog:
    """A log as far as it has come.

    Attributes:
        name: Its key, and its channel.
        content: Its bytes, from its start on; only ever longer.
        frames: What could be read of it, each frame with its offset; opened once for all listeners, in the waiter's
            thread, since that may have to read the key of a tenant.
        is_read: Whether what was there before the subscription was read.
    """

    __slots__ = ("_read_to", "_task_id", "content", "frames", "is_read", "name", "wakes")

    def __init__(self, task_id: str) -> None:
        self._task_id = task_id
        self.name = stream_key(task_id)
        self.content = b""
        self.frames: list[tuple[Frame, int]] = []
        self._read_to = 0
        self.is_read = False
        self.wakes: list[Wake] = []

    def add(self, start: int, entries: bytes) -> bool:
        """Add entries at an offset; return False if others before them are missing."""
        length = len(self.content)
        if start > length:
            return False
        if start + len(entries) > length:
            self.content += entries[length - start :]
            self._read_frames()
            self._wake_all()
        return True

    def note_read(self) -> None:
        """Take note that all before the subscription was read."""
        if not self.is_read:
            self.is_read = True
            self._wake_all()

    def _read_frames(self) -> None:
        try:
            for frame, end in read_entries(self._task_id, self.content, self._read_to):
                self._read_to = end
                self.frames.append((frame, end))
        except (UnreadableContent, ValueError, TypeError, LookupError) as error:
            tolerate("stream", error)  # its texts come with the answer
            self._read_to = len(self.content)

    def _wake_all(self) -> None:
        for wake in list(self.wakes):
            try:
                wake()
            except RuntimeError as error:  # a closed event loop
                tolerate("callback", error)


class HeardStreams:
    """The logs, on the waiter's connection.

    Args:
        client: The Redis of answers.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._start = stream_key("")
        self._logs: dict[str, HeardLog] = {}
        self._added: set[str] = set()
        self._subscribed: set[str] = set()
        self._read_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def are_followed(self) -> bool:
        """True while a log is followed, or one is still subscribed to."""
        return bool(self._logs or self._subscribed)

    def follow(self, task_id: str, wake: Wake) -> HeardLog:
        """Return the log of a task's stream, and call ``wake`` whenever it has grown."""
        new = HeardLog(task_id)
        with self._lock:
            log = self._logs.setdefault(new.name, new)
            log.wakes.append(wake)
            self._added.add(new.name)
        return log

    def leave(self, log: HeardLog, wake: Wake) -> None:
        """Take a ``wake`` back."""
        with self._lock:
            log.wakes.remove(wake)
            if not log.wakes:
                self._logs.pop(log.name, None)

    def begin(self) -> None:
        """Take note of a new connection, which subscribes to nothing yet."""
        with self._lock:
            self._subscribed.clear()
            self._added.update(self._logs)

    def subscribe_added(self, channel: PubSub) -> None:
        """Subscribe to logs that are newly followed; they are read once that is confirmed."""
        with self._lock:
            added, self._added = self._added & self._logs.keys(), set()
        if new := added - self._subscribed:
            channel.subscribe(*new)
            self._subscribed |= new
        self._read_whole(added - new)

    def unsubscribe(self, channel: PubSub) -> None:
        """Leave the channels of logs that are not followed any more."""
        with self._lock:
            gone = self._subscribed - self._logs.keys()
        if gone:
            channel.unsubscribe(*gone)
            self._subscribed -= gone

    def hear(self, kind: str, name: str, data: bytes) -> bool:
        """Take a message; return False if it belongs to no stream."""
        if not name.startswith(self._start):
            return False
        if kind == "message":
            offset, _, entries = data.partition(b"\n")
            log = self._logs.get(name)
            if log is not None and not log.add(int(offset), entries):
                self.read([name])
        elif kind == "subscribe":
            self._read_whole({name})
        return True

    def _read_whole(self, names: Collection[str]) -> None:
        """Read logs that are subscribed to: with what comes by message they are whole from here on."""
        self.read(names)
        with self._lock:
            logs = [log for name in names if (log := self._logs.get(name)) is not None]
        for log in logs:
            log.note_read()

    def read_again(self) -> None:
        """Read the rest of all logs where it is time."""
        now = time.monotonic()
        if now - self._read_at >= _READ_AGAIN_SECONDS:
            self._read_at = now
            self.read(list(self._logs))

    def read(self, names: Collection[str]) -> None:
        """Read the rest of these logs, in one round trip."""
        with self._lock:
            logs = [self._logs[name] for name in names if name in self._logs]
        starts = [len(log.content) for log in logs]
        steps = [command_step(bytes, "GETRANGE", log.name, start, -1) for log, start in zip(logs, starts, strict=True)]
        for log, start, rest in zip(logs, starts, run_together(self._client, steps) if steps else (), strict=True):
            log.add(start, rest)
