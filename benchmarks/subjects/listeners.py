"""Costs in Redis of an answer, of an invalidation and of listening itself, as more and more processes listen."""

from __future__ import annotations

import resource
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis

from benchmarks.subjects.redis_costs import Jobs, hash_of, put_jobs, redis_seconds
from dspyq.cache.claims import process_claims
from dspyq.cache.memory import PING_SECONDS
from dspyq.store.clients import jobs_client
from dspyq.store.keys import invalidations_channel, replies_channel
from dspyq.store.wire import pack

_MESSAGE = b"x" * 1_000
#: Connections and files of the server and of this process that are no listeners.
_OTHERS = 100
#: The most messages of a round of invalidations, which this process alone reads for all.
_MOST_HEARD = 20_000
_READ_BYTES = 65_536
_TIMEOUT_SECONDS = 30.0


def measure(sizes: Sequence[int], rounds: int, calls: int, redis_port: int, redis_pid: int) -> dict[str, Any]:
    """Measure at each number of listeners.

    Each stands for a process: one connection with the subscriptions of its two, to the invalidations and to the answers
    of its own tasks.

    Args:
        sizes: The numbers, upwards.
        rounds: Rounds of each operation; the least counts, as sizes cannot take turns and what else runs only adds.
        calls: Calls of a round.
        redis_port: The server's port.
        redis_pid: Its process.

    Returns:
        The server's seconds of an operation, by operation and size; the sizes reached; and why there are no more.
    """
    jobs, listeners = Jobs(), list[_Listener]()
    seconds: dict[str, list[float]] = {"answer": [], "invalidation": [], "listening": []}
    reached: list[int] = []
    refusal = ""
    asked = 0

    def invalidate(number: int) -> None:
        _invalidate(listeners, number)

    def ping(_: int) -> None:
        _ping(listeners)

    for size in sizes:
        try:
            _make_room(size)
            listeners += [_Listener(number, redis_port) for number in range(len(listeners), size)]
        except (OSError, ValueError, redis.RedisError) as error:
            refusal = f"{size:,} listeners were refused: {error}"
            break
        found: dict[str, list[float]] = {name: [] for name in seconds}
        for _ in range(rounds):
            receivers = [listeners[number * size // calls] for number in range(calls)]
            put_jobs([each.task_id(asked + number) for number, each in enumerate(receivers)], _MESSAGE)
            asked += calls
            jobs.look_at(calls)
            runs = [jobs.take() for _ in range(calls)]
            found["answer"].append(redis_seconds(redis_pid, calls, lambda number, runs=runs: jobs.answer(runs[number])))
            for each, answers in Counter(receivers).items():
                each.hear(b"SUCCESS", answers)
            found["invalidation"].append(redis_seconds(redis_pid, max(1, min(calls, _MOST_HEARD // size)), invalidate))
            found["listening"].append(redis_seconds(redis_pid, 1, ping) / PING_SECONDS)
        for name, each in found.items():
            seconds[name].append(min(each))
        reached.append(size)
    return {"seconds": seconds, "sizes": reached, "refusal": refusal}


class _Listener:
    """A process's subscriptions, on a socket: ten thousand of redis-py's would take this process minutes."""

    def __init__(self, number: int, port: int) -> None:
        self._start = f"{number:08x}-0000"
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_SECONDS)
        own = replies_channel(self.task_id(0))
        self.socket.sendall(pack(("SUBSCRIBE", invalidations_channel(), own)))
        self.hear(b"subscribe", 2)

    def task_id(self, number: int) -> str:
        """Return the id of a task that this process sends."""
        return f"{self._start}-4000-8000-{number:012x}"

    def hear(self, expected: bytes, times: int = 1) -> None:
        """Read until what is expected has come so many times."""
        heard = b""
        while heard.count(expected) < times:
            read = self.socket.recv(_READ_BYTES)
            if not read:
                raise ConnectionError("the server closed a listener's connection")
            heard += read


def _invalidate(listeners: Sequence[_Listener], number: int) -> None:
    """Invalidate a question, and wait until all have heard it."""
    input_hash = hash_of(f"{number:x}")
    process_claims().invalidate([input_hash])
    for each in listeners:
        each.hear(input_hash.encode())


def _ping(listeners: Sequence[_Listener]) -> None:
    """Have each find out whether it still hears, as every process does some times a second."""
    ping = pack(("PING",))
    for each in listeners:
        each.socket.sendall(ping)
    for each in listeners:
        each.hear(b"pong")


def _make_room(size: int) -> None:
    """Allow this process and the server so many connections.

    Raises:
        ValueError: If the machine does not allow this process as many.
        redis.ResponseError: If it does not allow the server as many.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < size + _OTHERS:
        raise ValueError(f"a process may open {most:,} files (ulimit -n)")
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(size + _OTHERS, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), most)
    )
    jobs_client().config_set("maxclients", max(size + _OTHERS, 1_000))
