"""kombu's Redis transport, with jobs as records: the list under a queue's name is only a doorbell.

Messages that are no jobs (replies to remote control, events) stay plain kombu messages.
"""

# mypy: allow-untyped-calls
# kombu is typed in part only, and all of this is calls to super().

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from queue import Empty
from typing import Any

import orjson
from kombu.transport import redis, virtual
from kombu.utils import uuid
from kombu.utils.json import dumps, loads

from dspyq.core.events import Event
from dspyq.delivery.leases import process_leases
from dspyq.delivery.pauses import process_pauses
from dspyq.delivery.records import Job

logger = logging.getLogger(__name__)

#: Marks what kombu writes of a type that JSON has not.
_KOMBU_TYPE = b'"__type__"'
#: What stands in a list for "there is a job to take".
BELL = 1
#: What kombu reads of a message.
_ENVELOPE = frozenset({"body", "headers", "properties"})
#: What reading a message raises that no task wrote.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
#: A task that replaces itself starts counting its retries anew, and still is newer than what it replaces.
_RETRIES_PER_REPLACEMENT = 2**20


class QoS(virtual.QoS):
    """Counts what was prefetched, in memory. An ack ends the job whatever became of the channel."""

    restore_at_shutdown = False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message until its run ends, is lost or is let go."""
        process_leases().return_slot_with(delivery_tag, functools.partial(self._quick_ack, delivery_tag))
        super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """End the job."""
        process_leases().finish(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Set a job aside that nobody can run; let one go whose body has begun: it comes back when its lease runs out.

        Celery also rejects, and for good, where it could not publish a retry; no job may be lost over that.
        """
        if ":" not in delivery_tag:
            super().reject(delivery_tag, requeue=requeue)
            return
        leases = process_leases()
        if requeue or leases.is_begun(delivery_tag):
            leases.let_go(delivery_tag)
        else:
            leases.set_aside(delivery_tag, "its task is unknown or its message is not one of a task")
        super().ack(delivery_tag)


class Channel(redis.Channel):
    """Puts jobs as records and measures queues by them."""

    ack_emulation = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.priority_steps = [0]  # one list of bells per queue: the order is in the scores
        self._seen_pauses: frozenset[str] = frozenset()
        self.QoS = QoS  # type: ignore[assignment]  # where acks are not emulated, kombu has put one of its own here

    @property
    def active_queues(self) -> list[str]:
        """The queues to take from now."""
        queues: list[str] = super().active_queues
        paused = process_pauses().queues
        return [queue for queue in queues if queue not in paused] if paused else queues

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._seen_pauses != (paused := process_pauses().queues):
            self._seen_pauses = paused
            self._update_queue_cycle()  # not each time: it starts the turns of the queues anew
        super()._brpop_start(timeout)

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except _UNREADABLE:
            return _drop_strange_item()  # no JSON

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not _is_of_task(message):
            super()._put(queue, message, **kwargs)
            return
        headers = message["headers"]
        job = Job(
            id=headers["id"],
            message=dumps({**message, "headers": {**headers, "eta": None}}),  # or Celery would wait for it in memory
            queue=queue,
            priority=self._get_message_priority(message),
            delay_seconds=_seconds_until(headers.get("eta")),
            generation=_generation(headers),
            is_child=bool(headers.get("parent_id")),
        )
        batch = kwargs.get("_publish_batch")
        if (kept := _kept.get()) is not None:
            kept.append(job)
        elif batch is None:
            process_leases().records.put(job)
        else:
            process_leases().records.put_in_batch(job, batch)

    def _get(self, queue: str) -> Any:  # type: ignore[override]  # kombu's own differs from its base
        message = super()._get(queue)
        if message == BELL:
            message = _take(queue)
        if message is None:
            raise Empty
        return message

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return process_leases().records.is_job_queue(queue) or bool(super()._has_queue(queue, **kwargs))

    def _size(self, queue: str) -> int:
        records = process_leases().records
        size: int = records.backlog(queue) if records.is_job_queue(queue) else super()._size(queue)
        return size

    def _purge(self, queue: str) -> int:
        records = process_leases().records
        removed: int = records.purge(queue) if records.is_job_queue(queue) else super()._purge(queue)
        return removed


class _Loop:
    """A worker's loop, which registers what is read from once.

    kombu registers every socket before each of its polls: a system call each, which fails, and for which the loop gives
    the interpreter away to hundreds of threads. A socket that kombu replaces, it registers itself.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def add_reader(self, fd: int, callback: Any, *args: Any) -> None:
        if self._hub.readers.get(fd) != (callback, args):
            self._hub.add_reader(fd, callback, *args)


class Transport(redis.Transport):
    """Answers a bell by taking a job."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Have a worker's loop read from this transport's connections."""
        super().register_with_event_loop(connection, _Loop(loop))

    def _deliver(self, message: Any, queue: str) -> None:
        if isinstance(message, dict) and message.keys() >= _ENVELOPE and not _is_of_task(message):
            self._deliver_envelope(message, queue)
        elif message != BELL:
            _drop_strange_item()
        elif queue in self._callbacks and queue not in process_pauses().queues:
            # Otherwise it was cancelled or paused meanwhile: a sweep rings again, for others.
            job = _take(queue)
            if job is not None:
                with _unreadable_is_set_aside(job["properties"]["delivery_tag"]):
                    super()._deliver(job, queue)

    def _deliver_envelope(self, message: dict[str, Any], queue: str) -> None:
        """Deliver what is no job of ours; where it cannot be read after all, nothing of it counts as prefetched."""
        tag = uuid()  # whatever its own is
        try:
            message["properties"]["delivery_tag"] = tag
            super()._deliver(message, queue)
        except _UNREADABLE:
            _drop_strange_item()
            for channel in self.channels:
                if tag in channel.qos._delivered:  # noqa: SLF001 - kombu has no other way to ask
                    channel.qos.ack(tag)


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same, on whichever Redis the sentinels name."""


class SentinelTransport(Transport, redis.SentinelTransport):
    """The same, on whichever Redis the sentinels name."""

    Channel = SentinelChannel


@contextlib.contextmanager
def jobs_kept() -> Iterator[list[Job]]:
    """Keep the jobs that this thread publishes, instead of putting them."""
    kept: list[Job] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


_kept: ContextVar[list[Job] | None] = ContextVar("_kept", default=None)


def _is_of_task(message: dict[str, Any]) -> bool:
    headers = message.get("headers") or {}
    return "task" in headers and "id" in headers


def _drop_strange_item() -> None:
    """Lists hold bells, and kombu's envelopes of what is no task's; over anything else Celery would end the worker."""
    logger.error(Event("strange_item_dropped", reason="a queue's list held neither a bell nor a message"))


def _take(queue: str) -> dict[str, Any] | None:
    """Take the first job of a queue and make its message the one of this run."""
    delivery = process_leases().take(queue)
    if delivery is None:
        return None
    with _unreadable_is_set_aside(delivery.tag):
        message = _read(delivery.message)
        if message["headers"]["id"] != delivery.id:
            raise ValueError("it is another job's")
        message["properties"]["delivery_tag"] = delivery.tag
        message["properties"]["hand_backs"] = delivery.hand_backs
        message["properties"]["run_count"] = delivery.run_count
        message["properties"]["claim_seen_at"] = time.monotonic() if delivery.is_claimed else None
        message["properties"]["delivery_info"]["redelivered"] = delivery.run_count > 1
        return message
    return None


def _read(text: bytes) -> dict[str, Any]:
    """Read a message as kombu does, in a tenth of the time where it is plain JSON."""
    try:
        message: dict[str, Any] = loads(text) if _KOMBU_TYPE in text else orjson.loads(text)
    except orjson.JSONDecodeError:  # also of half a surrogate pair, which kombu takes
        message = loads(text)
    return message


@contextlib.contextmanager
def _unreadable_is_set_aside(delivery_tag: str) -> Iterator[None]:
    """Out of Celery, such an error would end the worker, and the next that takes the job."""
    try:
        yield
    except _UNREADABLE:
        logger.exception(Event("job_not_readable", run=delivery_tag))
        process_leases().set_aside(delivery_tag, "its message cannot be read")


def _seconds_until(eta: str | None) -> float:
    if not eta:
        return 0.0
    moment = datetime.fromisoformat(eta)
    now = datetime.now(UTC) if moment.tzinfo else datetime.now(UTC).replace(tzinfo=None)
    return (moment - now).total_seconds()


def _generation(headers: dict[str, Any]) -> int:
    replacements, retries = headers.get("replaced_task_nesting") or 0, headers.get("retries") or 0
    return int(replacements * _RETRIES_PER_REPLACEMENT + retries)
