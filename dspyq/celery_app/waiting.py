"""Waiting for results: one thread and one Redis connection for all waiters of a process.

Celery's own consumer subscribes at each call and wakes every waiting thread at each message. Here a message wakes only
the waiters of its result, and threads and event loops wait alike. The answers to tasks that this process sent come on
one channel, subscribed to on the first wait: from then on, waiting for such a task costs Redis nothing. Any other task
has a channel of its own, as each followed stream has. Its result is read once the subscription is confirmed.

All awaited results are read once a second too, so a message lost with a connection costs a second at most. So does the
first answer of a worker older than the processes' channels: for a minute after it, each task's own channel is used.

After a few seconds, a waiter checks that the job still exists. If both the result and the job are gone (evicted), it
raises ``AnswerLost`` instead of hanging.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Unpack, cast

import redis
from redis.client import PubSub

from dspyq.cache.lost_result import REVOKED_RESULT
from dspyq.celery_app.callbacks import call_back
from dspyq.celery_app.cancellations import find_ends
from dspyq.celery_app.heard_replies import HeardReplies
from dspyq.celery_app.heard_streams import HeardStreams
from dspyq.celery_app.lost_jobs import AwaitedOptions, JobCheck, check_of, find_jobless
from dspyq.celery_app.task_ids import process_task_ids
from dspyq.core.events import Event
from dspyq.core.runtime import current, in_own_runtime, per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.prediction.stored import is_ready
from dspyq.store.clients import connect, jobs_client
from dspyq.store.content import decode_result
from dspyq.store.keys import TASK_ID_LENGTH, cancellations_channel, replies_channel, result_key
from dspyq.store.spines import answers_url

logger = logging.getLogger("dspyq.waiting")

Callback = Callable[[bytes], None]
_READ_AGAIN_SECONDS = 1.0
_RECONNECT_SECONDS = 0.5
#: How long each task's own channel is used once an answer did not come on the process's.
_DISTRUST_SECONDS = 60.0
#: Channels are unsubscribed in bulk, to save a command for each result.
_UNSUBSCRIBE_AT = 100
_JOBS_A_ROUND_TRIP = 500


@dataclass(slots=True)
class _Awaited:
    """An awaited result.

    Attributes:
        callbacks: The waiters' callbacks.
        on_states: The callbacks for states before the result, of those waiters that have one.
        check: The check for its job; None if a job is not known to have existed.
        is_relied_on: Whether it is to come on the process's channel, and was not looked for.
    """

    callbacks: list[Callback] = field(default_factory=list)
    on_states: dict[Callback, Callback] = field(default_factory=dict)
    check: JobCheck | None = None
    is_relied_on: bool = False


class Waiter:
    """Waiter for results: one callback for each awaited result.

    Args:
        client: The Redis of answers.
        jobs: The Redis of jobs.

    Attributes:
        runtime: What it belongs to.
        streams: The followed streams; ``wake_up`` after one is added.
    """

    def __init__(self, client: redis.Redis, jobs: redis.Redis) -> None:
        self.runtime = current()
        self._client = client
        self._jobs = jobs
        self._lock = threading.Lock()
        self._awaited: dict[str, _Awaited] = {}
        self._added: set[str] = set()
        own_id = process_task_ids().make()
        self._channel = replies_channel(own_id)
        self._own_start = result_key(process_task_ids().start)
        self._heard = HeardReplies()
        self.streams = HeardStreams(client)
        self._unheard: dict[str, float] = {}
        self._distrusted_until = 0.0
        self._is_idle = False
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_writer, False)
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @in_own_runtime
    def add(  # noqa: PLR0913 - what is known of an awaited result, by name
        self,
        task_id: str,
        callback: Callback,
        *,
        is_sent: bool = False,
        asked_at: float = float("-inf"),
        question: str = "",
        on_state: Callback | None = None,
    ) -> None:
        """Call ``callback`` with the stored result once there is one: from the waiter's thread, or at once if it came.

        Args:
            task_id: The task.
            callback: The waiter's callback.
            is_sent: Whether its job was sent. If it is gone then, and no result is there, the callback gets a failure,
                ``AnswerLost``; else an unknown id is waited for without end, as Celery does.
            asked_at: A monotonic second before which its answer was not there; left out where none is known.
            question: The input hash of its question, where that may be on another spine than the task's id.
            on_state: Called with what is published before the result, such as the progress of a user's own task.
        """
        key = result_key(task_id)
        with self._lock:
            is_heard = self._comes_by_channel(key) and asked_at >= self._heard.complete_since
            result = self._heard.take(key, asked_at=asked_at) if is_heard else None
            if result is None:
                awaited = self._awaited.setdefault(key, _Awaited())
                awaited.callbacks.append(callback)
                if on_state is not None:
                    awaited.on_states[callback] = on_state
                if is_sent and awaited.check is None:
                    awaited.check = check_of(question, task_id, self._jobs)
                awaited.is_relied_on = is_heard and key not in self._heard
                if not awaited.is_relied_on:
                    self._added.add(key)
                self._start()
            is_to_wake = self._is_idle or bool(self._added)
        if result is not None:
            call_back(callback, result)
        elif is_to_wake:
            self._wake()

    @in_own_runtime
    def remove(self, task_id: str, callback: Callback) -> None:
        """Remove a callback."""
        key = result_key(task_id)
        with self._lock:
            awaited = self._awaited.get(key)
            if awaited is None:
                return
            if callback in awaited.callbacks:
                awaited.callbacks.remove(callback)
                awaited.on_states.pop(callback, None)
            if not awaited.callbacks:
                del self._awaited[key]

    def wait(self, task_id: str, timeout_seconds: float | None, **awaited: Unpack[AwaitedOptions]) -> bytes | None:
        """Block until the result is there; return None after the timeout.

        Args:
            task_id: The task.
            timeout_seconds: The longest wait; None for no limit.
            **awaited: As of ``add``.
        """
        results: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.add(task_id, results.put, **awaited)
        with suppress(queue.Empty):
            return results.get(timeout=timeout_seconds and max(0.0, timeout_seconds))
        self.remove(task_id, results.put)
        with suppress(queue.Empty):  # it may have come meanwhile
            return results.get_nowait()
        return None

    @in_own_runtime
    def wake_up(self) -> None:
        """Have the thread look for what was added."""
        with self._lock:
            self._start()
        self._wake()

    def close(self) -> None:
        """Stop the thread; remaining waiters are not called back."""
        self._is_closed = True
        if self._thread is not None:
            self._wake()
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self.runtime.bind(self._run), name="dspyq-results", daemon=True)
            self._thread.start()

    def _comes_by_channel(self, key: str) -> bool:
        """Return True if a result comes on the process's channel."""
        return key.startswith(self._own_start) and time.monotonic() >= self._distrusted_until

    def _wake(self) -> None:
        try:
            os.write(self._wake_writer, b".")
        except BlockingIOError:
            return  # the pipe is full of wake-ups already

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._follow()
            except (redis.RedisError, OSError) as error:
                logger.warning(Event("results_not_heard", error=type(error).__name__))
            except Exception as error:  # noqa: BLE001 - every wait of this process depends on this thread
                tolerate("results_thread", error, is_fault=True)
            if not self._is_closed:
                time.sleep(_RECONNECT_SECONDS)

    def _follow(self) -> None:
        """Subscribe to awaited results, and hand out results that arrive."""
        with self._client.pubsub() as channel:
            channel.subscribe(self._channel, cancellations_channel())
            subscribed: set[str] = set()
            self._unheard.clear()
            self.streams.begin()
            with self._lock:
                self._added.update(self._awaited)
            read_at = time.monotonic()
            try:
                while not self._is_closed:
                    self.streams.subscribe_added(channel)  # first: a stream's answer comes behind its text
                    self._subscribe_added(channel, subscribed)
                    if time.monotonic() - read_at >= _READ_AGAIN_SECONDS:
                        self.streams.read_again()
                        self._read(list(self._awaited))
                        self._find_lost()
                        self._find_unheard()
                        read_at = time.monotonic()
                        self._leave(channel, subscribed, at_least=1)
                        self.streams.unsubscribe(channel)
                    self._receive(channel, is_subscribed=bool(subscribed))
                    self._leave(channel, subscribed, at_least=_UNSUBSCRIBE_AT)
            finally:
                with self._lock:
                    self._heard.end()

    def _subscribe_added(self, channel: PubSub, subscribed: set[str]) -> None:
        """Subscribe to results with channels of their own, to read them once that is confirmed; read the others."""
        with self._lock:
            added, self._added = self._added, set()
        new = {key for key in added - subscribed if not self._comes_by_channel(key)}
        if new:
            channel.subscribe(*new)
            subscribed |= new
        self._read(added - new)

    def _leave(self, channel: PubSub, subscribed: set[str], *, at_least: int) -> None:
        if len(subscribed) - len(self._awaited) < at_least:
            return
        with self._lock:
            gone = subscribed - self._awaited.keys()
        if gone:
            channel.unsubscribe(*gone)
            subscribed -= gone

    def _receive(self, channel: PubSub, *, is_subscribed: bool) -> None:
        """Wait for a message, a wake-up, or the time to read again and to leave channels without waiters."""
        connection = channel.connection
        stream = connection and connection._sock  # noqa: SLF001 - redis-py has no public way to select on it
        if stream is None:
            raise redis.ConnectionError("the connection is closed")
        poller = select.poll()  # select() takes no file beyond the 1,024th
        poller.register(self._wake_reader, select.POLLIN)
        poller.register(stream, select.POLLIN)
        with self._lock:
            self._is_idle = not (is_subscribed or self._awaited or self._added or self.streams.are_followed)
        ready = {descriptor for descriptor, _ in poller.poll(None if self._is_idle else _READ_AGAIN_SECONDS * 1000)}
        self._is_idle = False
        if self._wake_reader in ready:
            os.read(self._wake_reader, 65536)
        if stream.fileno() in ready:
            self._drain(channel)

    def _drain(self, channel: PubSub) -> None:
        """Read all that has arrived, decrypted or not, so that what is left to wait for is the socket's to announce."""
        connection = channel.connection
        try:
            while connection is not None and connection.can_read(timeout=0):
                message = channel.get_message(timeout=0)
                if message is not None:
                    self._hear(message["type"], message["channel"].decode(errors="replace"), message["data"])
        except redis.TimeoutError:
            return  # the rest of a message is on its way, and what there is of it is kept

    def _hear(self, kind: str, name: str, data: bytes) -> None:
        """Take a message; the confirmation of a subscription, after a lost connection too, has results looked for."""
        if kind == "message" and name == self._channel:
            key = result_key(data[:TASK_ID_LENGTH].decode(errors="replace"))
            self._unheard.pop(key, None)
            self._hand_out(key, _decoded(key, data[TASK_ID_LENGTH:]))
        elif name == cancellations_channel():
            for task_id in data.decode(errors="replace").split("\n") if kind == "message" else ():
                self._hand_out(result_key(task_id), REVOKED_RESULT)
        elif self.streams.hear(kind, name, data):
            return
        elif kind == "message":
            self._hand_out(name, _decoded(name, data))
        elif kind == "subscribe":
            with self._lock:
                if name == self._channel:
                    self._heard.begin()
                    self._added.update(self._awaited)
                else:
                    self._added.add(name)

    def _read(self, keys: Collection[str]) -> list[str]:
        """Hand out stored results; return the keys without one."""
        if not keys:
            return []
        missing = []
        results = cast("list[bytes | None]", self._client.mget(list(keys)))
        for key, result in zip(keys, results, strict=True):
            if result is None:
                missing.append(key)
            else:
                self._hand_out(key, _decoded(key, result), is_stored=True)
        return missing

    def _find_lost(self) -> None:
        """Hand out ``AnswerLost`` for results that have neither an answer nor a job."""
        with self._lock:
            due = ((key, one.check) for key, one in self._awaited.items() if one.check is not None and one.check.is_due)
            checked = list(islice(due, _JOBS_A_ROUND_TRIP))  # the others' turn is in a second
            for _, check in checked:
                check.postpone()
        for jobs, runtime in dict.fromkeys((check.jobs, check.runtime) for _, check in checked):
            names = {_task_id(key): key for key, check in checked if check.jobs is jobs}
            with runtime.active():
                jobless = find_jobless(jobs, names)
            without = self._read([names[task_id] for task_id in jobless])  # now: a job ends after its answer is stored
            task_ids = list(map(_task_id, without))
            with runtime.active():
                ends = find_ends(jobs, task_ids)
            for key, end in zip(without, ends, strict=True):
                self._hand_out(key, end)

    def _hand_out(self, key: str, result: bytes, *, is_stored: bool = False) -> None:
        """Call the waiters of a result back, if it is final.

        Bytes that are no result end the wait if they are stored; if they only came as a message, the stored result
        counts, which is read within a second.
        """
        is_final = is_ready(result)
        if is_final is None and not is_stored:
            tolerate("result", "unreadable_message")
        callbacks: Iterable[Callback] = ()
        with self._lock:
            if is_final or (is_final is None and is_stored):
                awaited = self._awaited.pop(key, None)
                if awaited:
                    callbacks = awaited.callbacks
                if awaited and awaited.is_relied_on and is_stored:
                    self._unheard[key] = time.monotonic()
                elif not is_stored and key.startswith(self._own_start):
                    self._heard.put(key, result, is_taken=bool(awaited))
            elif is_final is False and not is_stored and (awaited := self._awaited.get(key)):
                callbacks = list(awaited.on_states.values())
        for callback in callbacks:
            call_back(callback, result)

    def _find_unheard(self) -> None:
        """Distrust the process's channel for a while if an answer was read that it did not bring."""
        now = time.monotonic()
        if any(now - at >= _READ_AGAIN_SECONDS for at in self._unheard.values()):
            self._unheard.clear()
            self._distrusted_until = now + _DISTRUST_SECONDS
            with self._lock:
                self._added.update(self._awaited)


def _task_id(key: str) -> str:
    return key.removeprefix(result_key(""))


def _decoded(key: str, stored: bytes) -> bytes:
    return decode_result(_task_id(key), stored)


@per_runtime(is_of_part=True, close=Waiter.close)
def process_waiter() -> Waiter:
    """Return this process's waiter; a forked child gets one of its own."""
    return Waiter(connect(answers_url()), jobs_client())
