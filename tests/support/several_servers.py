"""Several Redis servers under the interface of one, so that what is done to one server is done to all."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from tests.support.redis_server import RedisServer

#: Commands whose replies have a place for each name asked for.
_BY_PLACE = frozenset({"hmget", "mget"})
#: Commands whose reply is lower on the servers that lack the key.
_OF_WHO_HAS_IT = frozenset({"pttl", "ttl"})
#: What means something on one server alone.
_OF_ONE = frozenset({"eval", "info", "monitor", "pipeline", "pubsub", "type"})


def lists_of(*servers: RedisServer, former: Sequence[RedisServer] = ()) -> dict[str, str]:
    """Return the variables of a process with these servers, and with the list before."""
    lists = {"DSPYQ_REDIS_URLS": servers, "DSPYQ_FORMER_REDIS_URLS": former}
    return {name: json.dumps([server.url for server in each]) for name, each in lists.items()}


class SeveralServers:
    """Servers that are ended, filled and read together.

    Attributes:
        servers: The servers.
        process: Their processes, as one.
    """

    def __init__(self, servers: Sequence[RedisServer]) -> None:
        self.servers = tuple(servers)
        self.process = _Each([server.process for server in servers])

    def client(self, *, decode_responses: bool = True) -> SeveralClients:
        """Return clients of all, as one."""
        return SeveralClients([server.client(decode_responses=decode_responses) for server in self.servers])

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the names of the keys of all, sorted."""
        return sorted(name for server in self.servers for name in server.keys(pattern))

    def cli(self, *arguments: str | float | bytes) -> Any:
        """Run a command on each, and return the reply of the last."""
        return [server.cli(*arguments) for server in self.servers][-1]

    def __getattr__(self, name: str) -> Any:
        """Do everything else to each."""
        return getattr(_Each(self.servers), name)


class SeveralClients:
    """Clients of several servers: a read sums up what all have, a write is made everywhere.

    Numbers of a count and members of collections are added up, and what one server confirms is true; of anything else,
    the first value that is there counts.
    """

    def __init__(self, clients: Sequence[Any]) -> None:
        self._clients = clients

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all."""
        for client in self._clients:
            client.close()

    def scan_iter(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Yield the names of the keys of all."""
        for client in self._clients:
            yield from client.scan_iter(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a command over all.

        Raises:
            AttributeError: If it means something on one server alone.
        """
        if name in _OF_ONE:
            raise AttributeError(f"{name} is asked of one server: use the servers' own clients")

        def run(*args: Any, **options: Any) -> Any:
            replies = [getattr(client, name)(*args, **options) for client in self._clients]
            if name in _OF_WHO_HAS_IT:
                return max(replies)
            return _first_of_each(replies) if name in _BY_PLACE else _together(replies)

        return run


class _Each:
    """Calls a method of each of several objects."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self._objects = objects

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: Any, **options: Any) -> None:
            for each in self._objects:
                getattr(each, name)(*args, **options)

        return call


def _together(replies: list[Any]) -> Any:
    there = [reply for reply in replies if reply is not None]
    if not there:
        return None
    first = there[0]
    if isinstance(first, bool):
        return any(there)
    if not isinstance(first, int | list | dict | set):
        return first
    if isinstance(first, int):
        return sum(there)
    if isinstance(first, list):
        return list(itertools.chain(*there))
    found = type(first)()
    for reply in there:
        found |= reply
    return found


def _first_of_each(replies: list[list[Any]]) -> list[Any]:
    """Return of replies with a place for each name what is there in any of them."""
    return [next((value for value in values if value is not None), None) for values in zip(*replies, strict=True)]
