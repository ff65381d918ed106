"""Connections to one slot of a Redis Cluster, wherever that is after a move or a failover.

A slot is to a cluster what a master's name is to sentinels: a connection looks up which node owns it, and goes there. A
reply by which a node sends clients elsewhere becomes a lost connection, for which everything above is prepared: it is
made again, to the right node, and what was sent is sent again. All keys of a client are in its slot, so no client of
clusters is needed, which would route each command by itself.
"""

# mypy: allow-untyped-calls
# redis-py is typed in part only.

from __future__ import annotations

import threading
import time
from typing import Any, Final
from weakref import WeakSet

import redis
from redis.client import Pipeline, PubSub
from redis.exceptions import AuthenticationError, AuthorizationError

from dspyq.core.redis_address import Address
from dspyq.core.runtime import after_fork, per_runtime
from dspyq.core.slots import slot_of

Node = tuple[str, int]

#: Replies that name a node to go to, others that send clients away, and errors of a script that ran elsewhere.
_NAMES_A_NODE: Final = "MOVED "
_ELSEWHERE: Final = ("ASK ", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN")
_IN_A_SCRIPT: Final = ("non local key", "-READONLY", "CLUSTERDOWN", "which is not served by this node")
#: The end of a subscription, and the names that messages of plain channels have.
_LEFT: Final = (b"sunsubscribe", "sunsubscribe")
_PLAIN: Final = {"smessage": "message", "ssubscribe": "subscribe", "sunsubscribe": "unsubscribe"}
#: How long a look at the owners holds, whatever one connection finds.
_FRESH_SECONDS: Final = 0.1
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.4
#: One attempt of several to reach a node has this part of the whole time, but not less than these seconds.
_PART_OF_AN_ATTEMPT: Final = 4
_LEAST_SECONDS: Final = 1.0
_DEFAULT_SECONDS: Final = 10.0


class SlotMoved(redis.ConnectionError):
    """The node does not serve the slot now; another does, or will."""


class SlotOwners:
    """Owners of a cluster's slots: looked up at any node that answers, and kept until a connection finds another.

    Args:
        address: The cluster.
        options: Options of connections to its nodes, by redis-py's names.
    """

    def __init__(self, address: Address, options: dict[str, Any]) -> None:
        self._seeds = list(address.hosts)
        self._nodes = list(address.hosts)
        kept = [name for name in options if name.startswith("ssl_") or name in ("username", "password")]
        self._options = {name: options[name] for name in kept}
        self._class = redis.SSLConnection if address.is_tls else redis.Connection
        self._owners: dict[int, Node] = {}
        self._ranges: list[tuple[int, int, Node]] = []
        self._read_at = float("-inf")
        self._lock = threading.Lock()
        _all_owners.add(self)

    def find(self, slot: int, *, attempt_seconds: float) -> Node:
        """Return the node that owns a slot.

        Args:
            slot: The slot.
            attempt_seconds: How long to wait for each node that is asked.

        Raises:
            redis.RedisError: If no node answers, or none owns it.
        """
        if (owner := self._owners.get(slot)) is not None:
            return owner
        with self._lock:
            if slot not in self._owners:
                self._read(min(attempt_seconds, _LEAST_SECONDS))
                found = next((node for first, last, node in self._ranges if first <= slot <= last), None)
                if found is None:
                    raise redis.ConnectionError(f"no node of the cluster owns slot {slot}")
                self._owners[slot] = found
            return self._owners[slot]

    def learn(self, slot: int, owner: Node) -> None:
        """Take the word of a node for a slot's owner."""
        self._owners[slot] = owner

    def doubt(self, slot: int) -> None:
        """Have the owner of a slot looked up anew, unless that was done just now."""
        if time.monotonic() - self._read_at >= _FRESH_SECONDS:
            self._owners.pop(slot, None)

    def renew_lock(self) -> None:
        """Begin anew in a forked child, whose parent may hold the lock."""
        self._lock = threading.Lock()

    def _read(self, attempt_seconds: float) -> None:
        """Read all ranges of slots from the first node that answers; one that does not is asked last from now on."""
        failure: Exception = redis.ConnectionError("the cluster has no nodes")
        for node in list(self._nodes):
            try:
                rows = self._ask(node, attempt_seconds)
            except AuthenticationError:
                raise
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                failure = error
                self._nodes.remove(node)
                self._nodes.append(node)
                continue
            self._ranges = [(int(row[0]), int(row[1]), owner) for row in rows if (owner := _node(row[2], node))]
            shown = [each for row in rows for other in row[2:] if (each := _node(other, node))]
            self._nodes = list(dict.fromkeys([node, *shown, *self._seeds]))
            self._read_at = time.monotonic()
            return
        raise redis.ConnectionError(f"no node of the cluster answers: {failure}")

    def _ask(self, node: Node, attempt_seconds: float) -> list[Any]:
        connection = self._class(
            host=node[0],
            port=node[1],
            socket_timeout=attempt_seconds,
            socket_connect_timeout=attempt_seconds,
            **self._options,
        )
        try:
            connection.send_command("CLUSTER", "SLOTS", check_health=False)
            rows: list[Any] = connection.read_response()
        finally:
            connection.disconnect()
        return rows


class Slot:
    """One slot of a cluster, which holds all keys of a spine.

    Attributes:
        key: A key in it, which holds nothing.
        number: Its number.
        version: Rises when it is known to have moved: a connection of an earlier version leads elsewhere.
    """

    def __init__(self, address: Address, key: str, options: dict[str, Any]) -> None:
        self.key = key
        self.number = slot_of(address.tag)
        self.version = 0
        self._owners = _owners_of(address, options)
        self._last: Node | None = None

    def owner(self, attempt_seconds: float) -> Node:
        """Return the node that owns it.

        Raises:
            redis.RedisError: If it cannot be found.
        """
        owner = self._owners.find(self.number, attempt_seconds=attempt_seconds)
        self._note(owner)
        return owner

    def _note(self, owner: Node) -> None:
        if owner != self._last:
            self._last = owner
            self.version += 1

    def doubt(self) -> None:
        """Have its owner looked up anew."""
        self._owners.doubt(self.number)

    def moved_by(self, reply: str) -> SlotMoved | None:
        """Return the error of a reply by which a node sends clients elsewhere, and note it; None for any other."""
        if reply.startswith(_NAMES_A_NODE):
            if reply.split(" ")[1] != str(self.number):
                return None  # a key of another slot: a fault of ours, which no other node mends
            host, _, port = reply.rpartition(" ")[2].rpartition(":")
            if host.strip("[]") and port.isdigit():
                owner = (host.strip("[]"), int(port))
                self._owners.learn(self.number, owner)
                self._note(owner)
                return SlotMoved(f"slot {self.number} of the cluster has moved")
        elif not (reply.startswith(_ELSEWHERE) or any(part in reply for part in _IN_A_SCRIPT)):
            return None
        self.doubt()
        return SlotMoved(f"slot {self.number} of the cluster is not served there now: {reply.partition(' ')[0]}")


class SlotConnection(redis.Connection):
    """A connection to the node that owns a slot."""

    def __init__(self, *, slot: Slot, **options: Any) -> None:
        self._slot = slot
        self._version = -1
        self._total_seconds = options.get("socket_connect_timeout") or options.get("socket_timeout") or _DEFAULT_SECONDS
        self._attempt_seconds = min(self._total_seconds, max(_LEAST_SECONDS, self._total_seconds / _PART_OF_AN_ATTEMPT))
        super().__init__(**options | {"socket_connect_timeout": self._attempt_seconds})

    def set_parser(self, parser_class: Any) -> None:
        """Have the parser make a lost connection of a reply that sends clients elsewhere."""
        super().set_parser(parser_class)
        parser, slot = self._parser, self._slot
        parse_error = parser.parse_error
        parser.parse_error = lambda reply: slot.moved_by(reply) or parse_error(reply)

    def connect(self) -> None:
        """Connect, unless there is a connection to the right node."""
        self.connect_check_health()

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Connect to the slot's owner, and to another one while that is changing, within the time of connecting.

        Raises:
            redis.TimeoutError: If no node serves the slot within that time; a further attempt would most likely wait
                as long.
        """
        del check_health, retry_socket_connect
        if self._sock and self._version == self._slot.version:
            return
        if self._sock:
            self.disconnect()
        end = time.monotonic() + self._total_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self.host, self.port = self._slot.owner(self._attempt_seconds)
                version = self._slot.version
                super().connect_check_health(check_health=False, retry_socket_connect=False)
            except (AuthenticationError, AuthorizationError):
                raise
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                self._slot.doubt()
                if time.monotonic() + pause >= end:
                    text = f"no node serves slot {self._slot.number} of the cluster: {error}"
                    raise redis.TimeoutError(text) from error
            else:
                self._version = version
                return
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _connect(self) -> Any:
        sock = super()._connect()
        sock.settimeout(self._attempt_seconds)  # until the node has shown that it serves the slot
        return sock

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - redis-py's signature
        """Greet the node, and have it show that it serves the slot."""
        super().on_connect_check_health(check_health=check_health)
        self.send_command("EXISTS", self._slot.key, check_health=False)
        self.read_response()
        self._sock.settimeout(self.socket_timeout)  # type: ignore[attr-defined]  # redis-py states None


class SlotSSLConnection(SlotConnection, redis.SSLConnection):
    """A connection to the node that owns a slot, by TLS."""


class ShardedPubSub(PubSub):
    """Subscriptions within the slot, with the methods and messages of plain ones.

    A cluster sends a plain message to every node, so that each would bear the answers of all.
    """

    def subscribe(self, *args: Any, **kwargs: Any) -> None:
        """Subscribe to channels of the slot."""
        self.ssubscribe(*args, **kwargs)

    def unsubscribe(self, *args: Any) -> Any:
        """Leave channels of the slot."""
        return self.sunsubscribe(*args)

    def handle_message(self, response: Any, ignore_subscribe_messages: bool = False) -> Any:  # noqa: FBT001, FBT002 - redis-py's signature
        """Return a message as a plain one; where a node ended a subscription, subscribe where the slot is now."""
        if isinstance(response, list) and response[0] in _LEFT and not self._is_leaving(response[1]):
            if (connection := self.connection) is not None:
                connection.disconnect()
                connection.connect()  # which subscribes to all channels
            return None
        message = super().handle_message(response, ignore_subscribe_messages)
        if message is not None:
            message["type"] = _PLAIN.get(message["type"], message["type"])
        return message

    def _is_leaving(self, channel: Any) -> bool:
        return channel is None or channel in self.pending_unsubscribe_shard_channels


class SlotPipeline(Pipeline):
    """A pipeline that publishes within the slot."""

    def publish(self, channel: Any, message: Any, **kwargs: Any) -> Any:
        """Publish on a channel of the slot."""
        return self.execute_command("SPUBLISH", channel, message, **kwargs)


class SlotClient(redis.Redis):
    """A client of one slot, which publishes and subscribes within it."""

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> SlotPipeline:  # noqa: FBT001, FBT002 - redis-py's signature
        """Return a pipeline."""
        return SlotPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

    def pubsub(self, **kwargs: Any) -> ShardedPubSub:
        """Return an object that subscribes."""
        return ShardedPubSub(self.connection_pool, event_dispatcher=self._event_dispatcher, **kwargs)

    def publish(self, channel: Any, message: Any, **kwargs: Any) -> Any:
        """Publish on a channel of the slot."""
        return self.execute_command("SPUBLISH", channel, message, **kwargs)


def slot_keys(client: redis.Redis) -> tuple[str, ...]:
    """Return a key to declare to scripts that are given none, so that a node without the slot runs nothing.

    Empty for a client of no slot.
    """
    slot = client.connection_pool.connection_kwargs.get("slot")
    return (slot.key,) if isinstance(slot, Slot) else ()


def _node(row: Any, asked: Node) -> Node | None:
    """Return a node of CLUSTER SLOTS; None for one that cannot be reached by what it shows."""
    host = row[0].decode() if isinstance(row[0], bytes) else row[0]
    if host == "?":
        return None
    return (host or asked[0], int(row[1]))  # without a name of its own, it is where the other one was found


def _owners_of(address: Address, options: dict[str, Any]) -> SlotOwners:
    """Return what this process has looked up of a cluster."""
    found = _clusters()
    name = (address.hosts, address.username, address.password, address.is_tls)
    return found.get(name) or found.setdefault(name, SlotOwners(address, options))


@per_runtime
def _clusters() -> dict[Any, SlotOwners]:
    """Return the clusters of this configuration."""
    return {}


def _renew_locks() -> None:
    for owners in list(_all_owners):
        owners.renew_lock()


_all_owners: WeakSet[SlotOwners] = WeakSet()
after_fork(_renew_locks)
