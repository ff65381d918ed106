"""Waiting for results: one thread and one Redis connection for all that a process waits for.

Celery's own consumer subscribes at each call and wakes every waiting thread at each message. Here nothing is subscribed
before somebody waits, one message wakes those who wait for it, and threads and event loops wait alike. A result is read
when it is subscribed to, and once a second after that, so that a message lost with a connection costs a second at most.

Who has waited for some seconds is told where neither an answer nor its job is left: without that, an answer evicted
before it was read would be waited for without end.
"""

from __future__ import annotations

import functools
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import orjson
import redis
from celery.states import READY_STATES
from kombu.utils.json import loads
from redis.client import PubSub

from dspyq.cache.claims import RESULT_PREFIX
from dspyq.cache.lost_result import LOST_RESULT
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.store.clients import JOB_PREFIX, connect, jobs_client, which_exist

logger = logging.getLogger("dspyq.waiting")

Callback = Callable[[bytes], None]
_READ_AGAIN_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5
#: Channels are left in bulk: each one alone would cost a command per result.
_UNSUBSCRIBE_AT = 100
#: How long a result is waited for before its job is looked for; then twice as long, up to the longest.
_FIRST_LOOK_SECONDS = 5.0
_LONGEST_LOOK_SECONDS = 60.0
_JOBS_A_ROUND_TRIP = 500


def read_meta(payload: bytes) -> dict[str, Any]:
    """Read a stored result. What Celery wrote may hold half a surrogate pair, which orjson refuses."""
    try:
        meta: dict[str, Any] = orjson.loads(payload)
    except orjson.JSONDecodeError:
        meta = loads(payload)
    return meta


@dataclass(slots=True)
class _Awaited:
    """A result that is waited for.

    Attributes:
        callbacks: Who waits.
        look_at: When to look for its job, by the monotonic clock; None where nobody knows that there was one.
        pause_seconds: How long to wait after that look.
    """

    callbacks: list[Callback] = field(default_factory=list)
    look_at: float | None = None
    pause_seconds: float = _FIRST_LOOK_SECONDS


class Waiter:
    """Calls back once for each result that is waited for.

    Args:
        client: The Redis of answers.
        jobs: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis, jobs: redis.Redis) -> None:
        self._client = client
        self._jobs = jobs
        self._lock = threading.Lock()
        self._awaited: dict[str, _Awaited] = {}
        self._added: set[str] = set()
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._thread: threading.Thread | None = None

    def add(self, task_id: str, callback: Callback, *, is_sent: bool = False) -> None:
        """Call ``callback`` with the stored result, from the waiter's thread, once there is one.

        Args:
            task_id: The task.
            callback: Who waits.
            is_sent: Whether its job was sent. If it is gone then, and no result is there, the callback gets a failure,
                ``AnswerLost``; else an unknown id is waited for without end, as Celery does.
        """
        key = RESULT_PREFIX + task_id
        with self._lock:
            awaited = self._awaited.setdefault(key, _Awaited())
            awaited.callbacks.append(callback)
            if is_sent and awaited.look_at is None:
                awaited.look_at = time.monotonic() + _FIRST_LOOK_SECONDS
            self._added.add(key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dspyq-results", daemon=True)
                self._thread.start()
        self._wake()

    def remove(self, task_id: str, callback: Callback) -> None:
        """Call back no more."""
        key = RESULT_PREFIX + task_id
        with self._lock:
            awaited = self._awaited.get(key)
            if awaited is None:
                return
            if callback in awaited.callbacks:
                awaited.callbacks.remove(callback)
            if not awaited.callbacks:
                del self._awaited[key]

    def wait(self, task_id: str, timeout_seconds: float | None, *, is_sent: bool = False) -> bytes | None:
        """Block until the result is there; return None if it is not within the timeout.

        Args:
            task_id: The task.
            timeout_seconds: How long to wait; None for without end.
            is_sent: As of ``add``.
        """
        ready = threading.Event()
        results: list[bytes] = []

        def receive(result: bytes) -> None:
            results.append(result)
            ready.set()

        self.add(task_id, receive, is_sent=is_sent)
        if not ready.wait(timeout_seconds):
            self.remove(task_id, receive)
        return results[0] if results else None

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b".")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def _run(self) -> None:
        while True:
            try:
                self._follow()
            except (redis.RedisError, OSError) as error:
                logger.warning(Event("results_not_heard", error=type(error).__name__))
                time.sleep(_RECONNECT_SECONDS)

    def _follow(self) -> None:
        """Keep the subscriptions at what is waited for, and hand out what arrives."""
        with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(RESULT_PREFIX)  # without any subscription a connection cannot be read
            subscribed: set[str] = set()
            with self._lock:
                self._added.update(self._awaited)
            read_at = time.monotonic()
            while True:
                self._subscribe_added(channel, subscribed)
                if time.monotonic() - read_at >= _READ_AGAIN_SECONDS:
                    self._read(list(self._awaited))
                    self._find_lost()
                    read_at = time.monotonic()
                    self._leave(channel, subscribed, at_least=1)
                self._receive(channel)
                self._leave(channel, subscribed, at_least=_UNSUBSCRIBE_AT)

    def _subscribe_added(self, channel: PubSub, subscribed: set[str]) -> None:
        with self._lock:
            added, self._added = self._added, set()
        if new := added - subscribed:
            channel.subscribe(*new)
            subscribed |= new
        if added:
            self._read(list(added))

    def _leave(self, channel: PubSub, subscribed: set[str], *, at_least: int) -> None:
        if len(subscribed) - len(self._awaited) < at_least:
            return
        with self._lock:
            gone = subscribed - self._awaited.keys()
        if gone:
            channel.unsubscribe(*gone)
            subscribed -= gone

    def _receive(self, channel: PubSub) -> None:
        """Wait for a message, a wake-up, or the time to read again."""
        connection = channel.connection
        stream = connection and connection._sock  # noqa: SLF001 - redis-py has no public way to select on it
        if stream is None:
            raise redis.ConnectionError("the connection is closed")
        timeout_seconds = _READ_AGAIN_SECONDS if self._awaited else None
        readable, _, _ = select.select([self._wake_reader, stream], [], [], timeout_seconds)
        if self._wake_reader in readable:
            os.read(self._wake_reader, 65536)
        if stream not in readable:
            return
        while connection.can_read(timeout=0):
            message = channel.get_message(timeout=0)
            if message is not None and message["type"] == "message":
                self._hand_out(message["channel"].decode(), message["data"])

    def _read(self, keys: Collection[str]) -> list[str]:
        """Hand out what is stored; return the keys of what is not."""
        if not keys:
            return []
        missing = []
        results = cast("list[bytes | None]", self._client.mget(keys))
        for key, result in zip(keys, results, strict=True):
            if result is None:
                missing.append(key)
            else:
                self._hand_out(key, result)
        return missing

    def _find_lost(self) -> None:
        """Tell who waits for a result that no job will bring any more."""
        now = time.monotonic()
        with self._lock:
            due = (key for key, one in self._awaited.items() if one.look_at is not None and one.look_at <= now)
            keys = list(islice(due, _JOBS_A_ROUND_TRIP))  # the others' turn is in a second
            for key in keys:
                awaited = self._awaited[key]
                awaited.look_at = now + awaited.pause_seconds
                awaited.pause_seconds = min(2 * awaited.pause_seconds, _LONGEST_LOOK_SECONDS)
        if not keys:
            return
        names = {key: key.removeprefix(RESULT_PREFIX) for key in keys}
        try:
            with_job = which_exist(self._jobs, JOB_PREFIX, names.values())
        except redis.RedisError as error:  # answers may live elsewhere, and are heard meanwhile
            logger.warning(Event("jobs_not_looked_for", error=type(error).__name__))
            return
        jobless = [key for key, task_id in names.items() if task_id not in with_job]
        for key in self._read(jobless):  # only now: a job ends after its answer is stored
            logger.warning(Event("answer_lost", task_id=names[key]))
            self._hand_out(key, LOST_RESULT)

    def _hand_out(self, key: str, result: bytes) -> None:
        if read_meta(result)["status"] not in READY_STATES:
            return
        with self._lock:
            awaited = self._awaited.pop(key, None)
        for callback in awaited.callbacks if awaited else ():
            callback(result)


@functools.cache
def process_waiter() -> Waiter:
    """Return this process's waiter; a forked child gets one of its own."""
    return Waiter(connect(get_settings().answers_url), jobs_client())


os.register_at_fork(after_in_child=process_waiter.cache_clear)
