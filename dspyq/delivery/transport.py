"""kombu's Redis transport with jobs as records; the list under a queue's name only wakes workers.

Messages that are no jobs (replies to remote control, events) stay plain kombu messages.
"""

# mypy: allow-untyped-calls
# kombu is typed in part only, and all of this is calls to super().

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Iterator
from queue import Empty
from typing import Any
from urllib.parse import urlsplit

from kombu.transport import redis, virtual
from kombu.utils import uuid
from kombu.utils.encoding import str_to_bytes
from redis.exceptions import RedisError

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.redis_address import Address, parse_address
from dspyq.core.tolerated import tolerate
from dspyq.delivery.adoptions import process_adoptions
from dspyq.delivery.job_messages import job_of, message_of
from dspyq.delivery.kept_jobs import jobs_kept, kept_jobs
from dspyq.delivery.leases import Leases, process_leases
from dspyq.delivery.loop import Loop
from dspyq.delivery.message import Message
from dspyq.delivery.message_body import encode_body, is_of_task
from dspyq.delivery.pauses import process_pauses
from dspyq.delivery.publish_batch import PublishBatch
from dspyq.delivery.quiet_queues import process_quiet_queues
from dspyq.delivery.records import Delivery, QueuedJob
from dspyq.delivery.versions import process_versions
from dspyq.store.clients import connection_pool
from dspyq.store.content import UnknownKey

logger = logging.getLogger(__name__)

#: Channel options that its connections use.
_CONNECTION_OPTIONS = (
    "max_connections",
    "socket_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_keepalive_options",
    "health_check_interval",
    "retry_on_timeout",
    "client_name",
)
#: The bell: a list item that means "there is a job to take".
BELL = 1
#: Parts of a message that kombu reads.
_ENVELOPE = frozenset({"body", "headers", "properties"})
#: The most jobs that one bell brings, so that a queue with many does not hold up the others.
_MOST_AT_ONCE = 8
#: A job whose key is not here waits so long before it is taken again.
_UNKNOWN_KEY_SECONDS = 3.0
#: Errors of reading a message that no task wrote.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class QoS(virtual.QoS):
    """Count of prefetched messages, in memory. An ack ends the job even if the channel is gone."""

    restore_at_shutdown = False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message until its run ends, is lost or is let go."""
        self._leases(delivery_tag).return_slot_with(delivery_tag, functools.partial(self._quick_ack, delivery_tag))
        super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """End the job."""
        self._leases(delivery_tag).finish(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Set a job aside that cannot run; release one whose body has begun, to be redelivered after its lease.

        Celery also rejects, permanently, if it could not publish a retry; no job may be lost then.
        """
        if ":" not in delivery_tag:
            super().reject(delivery_tag, requeue=requeue)
            return
        leases = self._leases(delivery_tag)
        if requeue or leases.is_begun(delivery_tag):
            leases.let_go(delivery_tag)
        else:
            leases.set_aside(delivery_tag, "its task is unknown or its message is not one of a task")
        super().ack(delivery_tag)

    def _leases(self, delivery_tag: str) -> Leases:
        """Return the leases that hold a run."""
        del delivery_tag
        return process_leases()


class Channel(redis.Channel):
    """Channel that stores jobs as records and measures queues by them."""

    Message = Message
    ack_emulation = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.priority_steps = [0]  # one list of bells for each queue: scores keep the order
        self._seen: tuple[frozenset[str], ...] = ()
        self._active: tuple[tuple[frozenset[str], ...], list[str]] = ((), [])
        self._packed_names: dict[str, bytes] = {}
        self.QoS = QoS  # type: ignore[assignment]  # where acks are not emulated, kombu has put one of its own here

    def _get_pool(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's signature
        """Return connections to the Redis of jobs, made as all others are, with kombu's options."""
        address = parse_address(self._url())
        if not self._leads_to(address):  # an app with a broker of its own
            return super()._get_pool(asynchronous)
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=address.database)
        options = {name: getattr(self, name) for name in _CONNECTION_OPTIONS}
        return connection_pool(address, derive=self._watched if asynchronous else lambda base: base, **options)

    def _url(self) -> str:
        """Return the URL that this channel's connections lead to."""
        return get_settings().control_url

    def create_publish_batch(self, max_size: int) -> PublishBatch:
        """Return a batch of messages for one pipeline."""
        return PublishBatch(self, max_size)

    def _leads_to(self, address: Address) -> bool:
        client, wanted = self.connection.client, urlsplit(address.celery_url)
        named = (client.hostname, client.port, str(client.virtual_host).strip("/"))
        return named == (wanted.hostname, wanted.port, wanted.path.strip("/"))

    def _watched(self, base: type[Any]) -> type[Any]:
        """Return a class of connections that this channel polls until they are disconnected."""
        channel = self

        class Watched(base):  # type: ignore[misc]  # whichever it is
            def disconnect(self, *args: Any, **kwargs: Any) -> None:
                super().disconnect(*args, **kwargs)
                if channel._registered:
                    channel._on_connection_disconnect(self)

        return Watched

    @property
    def active_queues(self) -> list[str]:
        """Queues to take from now; cached until a change, because each turn of the loop reads them."""
        changing = self._changing_queues()
        if self._active[0] != changing:
            paused, _, quiet = changing
            queues: list[str] = super().active_queues
            active = [queue for queue in queues if queue not in paused] if paused else list(queues)
            with_jobs = process_versions().with_jobs(active)
            if quiet:
                active = [queue for queue in active if queue not in quiet] + [process_quiet_queues().passed_on]
            self._active = changing, [*with_jobs, *active]
        return self._active[1]

    def _changing_queues(self) -> tuple[frozenset[str], ...]:
        """Return what changes the queues to take from: those paused, versions' with jobs, and the quiet ones."""
        return process_pauses().queues, process_versions().waiting, process_quiet_queues().queues

    def _update_queue_cycle(self) -> None:
        """Begin the turns of the queues anew; kombu calls it when it consumes others than before."""
        self._active = (), []
        super()._update_queue_cycle()

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Wait for a bell, as kombu does, at a cost almost independent of the number of queues."""
        seen = self._changing_queues()
        if self._seen != seen:
            self._seen = seen
            self._update_queue_cycle()  # not each time: it restarts the rotation of queues
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self.client.connection
        self._brpop_sent_at = time.monotonic()  # type: ignore[assignment]  # kombu's annotation is that of its first value
        names = b"".join([self._packed_names.get(queue) or self._pack_name(queue) for queue in queues])
        wait = _bulk_string(str(timeout or self.brpop_timeout or 0).encode())
        connection.send_packed_command([b"*%d\r\n%s%s%s" % (len(queues) + 2, _BRPOP, names, wait)])
        self._in_poll = connection  # only now: an attempt to connect that fails ends what is under way

    def _pack_name(self, queue: str) -> bytes:
        """Return the list's name in Redis's protocol; cached."""
        packed = self._packed_names[queue] = _bulk_string(f"{self.global_keyprefix}{queue}".encode())
        return packed

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except _UNREADABLE:
            return drop_strange_item()  # no JSON

    def _receive_one(self, c: Any) -> bool:
        """Receive from a broadcast channel, such as remote control's, to which any client may publish."""
        try:
            return bool(super()._receive_one(c))
        except Empty:  # no JSON, which kombu has logged; further messages may have been read with it
            return False
        except _UNREADABLE:
            drop_strange_item()
            return False

    def basic_publish(self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any) -> Any:
        """Publish a message; a task's body is stored in its encoded form."""
        if is_of_task(message["headers"]):
            message["body"] = encode_body(message["headers"], str_to_bytes(message["body"]))
        return super().basic_publish(message, exchange, routing_key, **kwargs)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not is_of_task(message.get("headers")):
            super()._put(queue, message, **kwargs)
            return
        job = job_of(message, queue, self._get_message_priority(message))
        batch = kwargs.get("_publish_batch")
        if (kept := kept_jobs()) is not None:
            kept.append(job)
        elif batch is None:
            process_leases().records.put(job)
        else:
            process_leases().records.put_in_batch(job, batch)

    def _get(self, queue: str) -> Any:  # type: ignore[override]  # kombu's own differs from its base
        message = super()._get(queue)
        if message == BELL:
            message = take_first(queue)
        if message is None:
            raise Empty
        return message

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue; fanout is a channel and needs no table, in which killed workers would stay."""
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))
        else:
            super()._queue_bind(exchange, routing_key, pattern, queue)

    def _refresh_bindings(self, queues: list[str]) -> None:
        """Keep bindings of queues that expire."""
        super()._refresh_bindings([queue for queue in queues if queue not in self._fanout_queues])

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        del kwargs
        # An empty list does not exist; kombu looks it up without the global key prefix.
        return process_leases().records.is_job_queue(queue) or bool(super()._size(queue))

    def _size(self, queue: str) -> int:
        records = process_leases().records
        size: int = records.backlog(queue) if records.is_job_queue(queue) else super()._size(queue)
        return size

    def _purge(self, queue: str) -> int:
        records = process_leases().records
        return int(records.purge(queue) if records.is_job_queue(queue) else super()._purge(queue))


def _bulk_string(value: bytes) -> bytes:
    """Return a command's argument in Redis's protocol."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


_BRPOP = _bulk_string(b"BRPOP")


class Transport(redis.Transport):
    """Transport that takes a job when a bell arrives."""

    Channel = Channel

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Register this transport's connections with a worker's loop."""
        super().register_with_event_loop(connection, Loop(loop))

    def _deliver(self, message: Any, queue: str) -> None:
        quiet = process_quiet_queues()
        if queue == quiet.passed_on and isinstance(message, str):
            message, queue = BELL, message
        if is_envelope(message):
            if is_of_task(message.get("headers")):
                self._adopt(message, queue)
            else:
                self._deliver_envelope(message, queue)
        elif message != BELL:
            drop_strange_item()
        elif (base := process_versions().base(queue)) in self._callbacks and base not in process_pauses().queues:
            # Otherwise it was cancelled or paused meanwhile: a sweep rings again, for others.
            quiet.note_bell(base)
            self._deliver_jobs(base, process_leases().take_many(base, most=self._room_for(base)))

    def _room_for(self, queue: str) -> int:
        """Return how many jobs of a queue one bell may bring: those that its consumer can begin at once."""
        for channel in self.channels:
            if queue in channel._active_queues:  # noqa: SLF001 - kombu has no public way
                return max(1, min(_MOST_AT_ONCE, channel.qos.can_consume_max_estimate() or 1))
        return 1

    def _deliver_jobs(self, queue: str, taken: list[Delivery]) -> None:
        """Deliver jobs; where one of them ends the consumer, those behind it go back."""
        waiting = deque(taken)
        try:
            while waiting:
                tag = waiting[0].tag
                with _unreadable_is_set_aside(tag):
                    message = message_of(waiting.popleft())
                    super()._deliver(message, queue)
        finally:
            if waiting:
                with contextlib.suppress(RedisError):  # then their leases run out
                    process_leases().give_back([delivery.tag for delivery in waiting])

    def _adopt(self, message: dict[str, Any], queue: str) -> None:
        """Make a job of a task that another application sent by kombu's own transport; its bell brings it back."""
        try:
            if not isinstance(message["headers"]["id"], str):
                raise TypeError("a task's id is a text")
            channel, encoding = self.channels[0], message["properties"].get("body_encoding")
            body = encode_body(message["headers"], str_to_bytes(channel.decode_body(message["body"], encoding)))
            message["body"], message["properties"]["body_encoding"] = channel.encode_body(body, "base64")
            with jobs_kept() as jobs:
                channel._put(process_versions().base(queue), message)  # noqa: SLF001 - our own channel's
        except _UNREADABLE:
            drop_strange_item()
            return
        for job in jobs:
            self._store_adopted(job)

    def _store_adopted(self, job: QueuedJob) -> None:
        """Store a job that is popped already: Redis may refuse it, but must not lose it."""
        process_adoptions().store(job, process_leases().records)

    def _deliver_envelope(self, message: dict[str, Any], queue: str) -> None:
        """Deliver a message that is no job; if it cannot be read, it does not count as prefetched."""
        tag = uuid()  # in place of its own
        try:
            message["properties"]["delivery_tag"] = tag
            super()._deliver(message, queue)
        except _UNREADABLE:
            drop_strange_item()
            for channel in self.channels:
                if tag in channel.qos._delivered:  # noqa: SLF001 - kombu has no public way
                    channel.qos.ack(tag)


def is_envelope(item: object) -> bool:
    """Return True for a list's item that has the form of kombu's messages."""
    return isinstance(item, dict) and item.keys() >= _ENVELOPE


def drop_strange_item() -> None:
    """Drop an item that is neither a bell nor an envelope of kombu: Celery would end the worker over it."""
    logger.error(Event("strange_item_dropped", reason="a queue's list held neither a bell nor a message"))
    tolerate("list_item", "strange")


def take_first(queue: str) -> dict[str, Any] | None:
    """Take the first job of a queue and make its message the one of this run."""
    delivery = process_leases().take(queue)
    if delivery is None:
        return None
    with _unreadable_is_set_aside(delivery.tag):
        return message_of(delivery)
    return None


@contextlib.contextmanager
def _unreadable_is_set_aside(delivery_tag: str) -> Iterator[None]:
    """Dead-letter an unreadable job: Celery would end this worker over it, and the next one that takes it.

    A job that is sealed with a key that is not here goes back to its queue, for a worker that has it.
    """
    try:
        yield
    except UnknownKey as error:  # counted and logged, at most once a second
        logger.debug(Event("job_of_unknown_key", run=delivery_tag, reason=str(error)))
        process_leases().park(delivery_tag, _UNKNOWN_KEY_SECONDS)
    except _UNREADABLE:
        logger.exception(Event("job_not_readable", run=delivery_tag))
        process_leases().set_aside(delivery_tag, "its message cannot be read")
