"""The transport where there are several spines: Celery's own messages at home, and a channel for each served spine.

Celery's connection leads to the home, the Redis of what the fleet has once. A worker's connection has satellites
besides: channels that wait for the bells of one spine each, and share its consumers and its prefetch limit. A spine
that is away costs its satellite alone: its errors end here, as Celery would close all channels over them.
"""

# mypy: allow-untyped-calls
# kombu is typed in part only, and much of this is calls to super().

from __future__ import annotations

import logging
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis.exceptions import RedisError

from dspyq.config.settings import get_settings
from dspyq.core.redis_address import Address, parse_address
from dspyq.core.runtime import current
from dspyq.delivery.adoptions import process_adoptions
from dspyq.delivery.job_messages import job_of
from dspyq.delivery.kept_jobs import kept_jobs
from dspyq.delivery.leases import Leases, leases_of, process_leases
from dspyq.delivery.message_body import is_of_task
from dspyq.delivery.pauses import process_pauses
from dspyq.delivery.records import QueuedJob
from dspyq.delivery.satellite_link import SatelliteLink
from dspyq.delivery.served_spines import process_served_spines
from dspyq.delivery.transport import BELL, Channel, QoS, Transport, drop_strange_item, is_envelope, take_first
from dspyq.store.key_bases import key_base
from dspyq.store.spines import Spine, current_spine, each_spine, on_each_spine, on_spine

logger = logging.getLogger(__name__)

#: Errors of a spine that is away or refuses.
_AWAY = (RedisError, OSError)


class SpineQoS(QoS):
    """Count of the messages that were prefetched from all spines."""

    def _leases(self, delivery_tag: str) -> Leases:
        return leases_of(delivery_tag)


class HomeChannel(Channel):
    """Channel to the home. A task that is sent through it goes to the spine of its question, or of its id."""

    connection: SpineTransport

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.QoS = SpineQoS  # type: ignore[assignment]  # as in its base

    @property
    def active_queues(self) -> list[str]:
        """Queues in which others may send tasks to the home; their bells ring on the spines."""
        if self.connection.links and self.connection.is_home_a_spine:
            return []  # else it would take that spine's bells
        paused = process_pauses().queues
        return [queue for queue in super(Channel, self).active_queues if queue not in paused]

    def _changing_queues(self) -> tuple[frozenset[str], ...]:
        return (process_pauses().queues,)

    def _update_queue_cycle(self) -> None:
        super()._update_queue_cycle()
        for link in self.connection.links:
            link.begin_turns()

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue; of a worker's queues its satellites take."""
        if queue not in self._fanout_queues:
            self.connection.consuming = self
        return super().basic_consume(queue, *args, **kwargs)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not is_of_task(message.get("headers")):
            super()._put(queue, message, **kwargs)
            return
        job = job_of(message, queue, self._get_message_priority(message))
        if (kept := kept_jobs()) is not None:
            kept.append(job)
            return
        with on_spine(job.input_hash or job.id):
            process_leases().records.put(job)

    def _get(self, queue: str) -> Any:  # type: ignore[override]  # as in its base
        for _ in each_spine():
            message = take_first(queue)
            if message is not None:
                return message
        return super()._get(queue)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        del kwargs
        holding = any(on_each_spine(lambda: process_leases().records.is_job_queue(queue)))
        return bool(holding or super(Channel, self)._size(queue))

    def _size(self, queue: str) -> int:
        size: int = super(Channel, self)._size(queue)
        return size + sum(on_each_spine(lambda: process_leases().records.backlog(queue)))

    def _purge(self, queue: str) -> int:
        purged: int = super(Channel, self)._purge(queue)
        return purged + sum(on_each_spine(lambda: process_leases().records.purge(queue)))


class Satellite(Channel):
    """Channel that waits for the bells of one spine, for the consumers of another channel.

    It connects once, where it is made. Whatever then fails ends it.

    Args:
        transport: The worker's.
        spine: The spine, which is active.
        home: The channel whose consumers it serves.
    """

    connection: SpineTransport

    def __init__(self, transport: SpineTransport, spine: Spine, home: HomeChannel) -> None:
        self._spine = spine
        self._home = home
        self.lost: BaseException | None = None
        self._key_base = key_base()
        super().__init__(transport)
        self._active_queues = home._active_queues  # noqa: SLF001 - the list that consumers are added to
        self.client.connection = self.client.connection_pool.get_connection()

    @property
    def global_keyprefix(self) -> str:
        """Start of the names of this spine's lists."""
        return self._key_base

    @global_keyprefix.setter
    def global_keyprefix(self, value: str) -> None:
        del value  # that of the home

    @property
    def qos(self) -> virtual.QoS:
        """The prefetch limit, which is one for all spines."""
        qos: virtual.QoS = self._home.qos
        return qos

    @property
    def active_queues(self) -> list[str]:
        """Queues to take from now."""
        with self._spine.runtime.active():
            return super().active_queues

    @property
    def is_connected(self) -> bool:
        """True until it has lost its connection."""
        return self.client.connection is not None and self.client.connection._sock is not None  # noqa: SLF001 - as kombu

    def begin_turns(self) -> None:
        """Begin the turns of the queues anew."""
        self._update_queue_cycle()

    def guard(self, step: Any, *arguments: Any) -> Any:
        """Take a step of the loop on its spine; a failure of the spine ends this channel alone."""
        try:
            with self._spine.runtime.active():
                return step(*arguments)
        except _AWAY as error:
            self.lost = self.lost or error
            return None

    def close(self) -> None:
        """Close it; a bell that Redis sends it now is lost, and the next sweep rings again."""
        self._in_poll = None  # type: ignore[assignment]  # as kombu sets it
        super().close()

    def _url(self) -> str:
        return self._spine.url

    def _leads_to(self, address: Address) -> bool:
        del address
        return True

    def _get_free_channel_id(self) -> int:
        return 0  # of this transport's own; others are counted, in one thread


class _Poller(kombu_redis.MultiChannelPoller):
    """Poller that attends to satellites before each of its rounds, and contains their failures."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[SatelliteLink[Satellite]] = []

    def add(self, channel: Any) -> None:
        """Add a channel; a satellite is added by ``join``, from the loop's own thread."""
        if not isinstance(channel, Satellite):
            super().add(channel)

    def join(self, satellite: Satellite) -> None:
        """Poll a satellite too."""
        super().add(satellite)

    def on_poll_start(self) -> None:
        """Close satellites that are lost, add those that are connected again, and wait for bells."""
        for link in self.links:
            link.attend()
        super().on_poll_start()

    def on_readable(self, fileno: int) -> Any:
        """Read what has come."""
        channel, _ = self._fd_to_chan.get(fileno, (None, ""))
        if isinstance(channel, Satellite):
            return channel.guard(super().on_readable, fileno)
        return super().on_readable(fileno)

    def handle_event(self, fileno: int, event: int) -> Any:
        """Read what has come, or an error."""
        channel, _ = self._fd_to_chan.get(fileno, (None, ""))
        if isinstance(channel, Satellite):
            return channel.guard(super().handle_event, fileno, event)
        return super().handle_event(fileno, event)

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802 - kombu's name
        if not isinstance(channel, Satellite):
            super()._register_BRPOP(channel)
        elif channel.is_connected:
            channel.guard(super()._register_BRPOP, channel)
        else:
            channel.lost = channel.lost or ConnectionError("its connection was closed")


class SpineTransport(Transport):
    """Transport over several spines.

    Attributes:
        links: The links to the spines that a worker serves; none in other processes.
        consuming: The channel whose consumers run its jobs, once there is one.
        is_home_a_spine: Whether the home's Redis holds questions too.
    """

    Channel = HomeChannel
    cycle: _Poller  # type: ignore[assignment]  # kombu's base has another kind
    supports_batch_publish = False  # one pipeline leads to one server

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.links: list[SatelliteLink[Satellite]] = []
        self.consuming: HomeChannel | None = None
        settings = get_settings()
        home = parse_address(settings.control_url)
        self.is_home_a_spine = home in [parse_address(url) for url in settings.spine_urls]
        self.cycle = _Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Register with a worker's loop: from now on, jobs of the served spines are taken."""
        served = process_served_spines()
        self.cycle.links = self.links = [SatelliteLink(spine, self._connect, self._join) for spine in served.all]
        served.on_new.append(self._serve)
        super().register_with_event_loop(connection, loop)

    def close_connection(self, connection: Any) -> None:
        """Close the satellites too."""
        served = process_served_spines()
        if self._serve in served.on_new:
            served.on_new.remove(self._serve)
        for link in self.links:
            link.close()
        super().close_connection(connection)

    def _serve(self, spine: Spine) -> None:
        self.links.append(SatelliteLink(spine, self._connect, self._join))

    def _connect(self, spine: Spine) -> Satellite | None:
        return None if self.consuming is None else Satellite(self, spine, self.consuming)

    def _join(self, satellite: Satellite) -> None:
        self.channels.append(satellite)
        self.cycle.join(satellite)
        satellite.begin_turns()

    def _deliver(self, message: Any, queue: str) -> None:
        if current() is not current().whole:
            super()._deliver(message, queue)
        elif is_envelope(message):
            if is_of_task(message.get("headers")):
                self._adopt(message, queue)
            else:
                self._deliver_envelope(message, queue)
        elif message != BELL:
            drop_strange_item()

    def _store_adopted(self, job: QueuedJob) -> None:
        with on_spine(job.input_hash or job.id):
            adoptions, records = process_adoptions(), process_leases().records
            adoptions.store(job, records)
            if current_spine() not in process_served_spines().all:
                adoptions.keep_storing(records)
