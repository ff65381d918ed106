"""Lua scripts: each change of shared state is one, and several go in one round trip."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import hiredis
import redis
from redis.exceptions import NoScriptError
from redis.typing import EncodableT

Result = TypeVar("Result")
_Command = tuple[EncodableT, ...]


class Script:
    """A Lua script that Redis knows by its hash.

    It stands for redis-py's own, whose client measures each call for its telemetry: a third of a local round trip.

    Attributes:
        script: Its text; redis-py's pipelines read it.
        sha: Its hash, as Redis computes it.
    """

    def __init__(self, client: redis.Redis, text: str) -> None:
        self.script = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self._client = client

    def __call__(self, keys: Sequence[str] = (), args: Iterable[EncodableT] = ()) -> Any:
        """Run it and return its reply."""
        return run_together(self._client, [self.step(_as_it_is, keys, args)])[0]

    def step(
        self, read: Callable[[Any], Result], keys: Sequence[str] = (), args: Iterable[EncodableT] = ()
    ) -> Step[Result]:
        """Return a run of it that is yet to be done.

        Args:
            read: Makes of its reply what the step returns.
            keys: Its keys.
            args: Its arguments.
        """
        return Step(self, ("EVALSHA", self.sha, len(keys), *keys, *args), read)


class Step(NamedTuple, Generic[Result]):
    """A run of a script, or a plain command, that is yet to be done.

    Attributes:
        script: The script; None for a plain command.
        command: What is sent.
        read: Makes of the reply what the step returns.
    """

    script: Script | None
    command: _Command
    read: Callable[[Any], Result]


def command_step(read: Callable[[Any], Result], *command: EncodableT) -> Step[Result]:
    """Return a plain command as a step, to be run together with scripts."""
    return Step(None, command, read)


def run_together(client: redis.Redis, steps: Sequence[Step[Any]]) -> list[Any]:
    """Run steps in one round trip, in order, and return what each returns.

    Other clients' commands may come in between. After a lost connection all of them run again, so a script must bear
    to run twice.

    Raises:
        redis.RedisError: If Redis does not answer, or the first error of a script; the others ran all the same.
    """
    try:
        replies = _run_all(client, steps)
    except redis.ConnectionError:
        client.ping()  # redis-py's own way, which tries again to connect
        replies = _run_all(client, steps)
    results = []
    for step, reply in zip(steps, replies, strict=True):
        if isinstance(reply, Exception):
            raise reply
        results.append(step.read(reply))
    return results


def load_script(
    client: redis.Redis, package: str, name: str, *, library: str | None = None, second_library: str | None = None
) -> Script:
    """Return a Lua script of a package, ``<package>/lua/<name>.lua``, behind optional libraries of local functions.

    A script that starts with a ``#!lua`` line keeps it first.

    Args:
        client: The client that runs it.
        package: The package whose script it is.
        name: Its name.
        library: The name of the package's own library.
        second_library: A package whose ``jobs.lua`` comes before that one.
    """
    folder = files(package) / "lua"
    text = (folder / f"{name}.lua").read_text()
    if library:
        shared = (folder / f"{library}.lua").read_text()
        if second_library:
            shared = "\n".join(((files(second_library) / "lua" / "jobs.lua").read_text(), shared))
        first, rest = text.split("\n", 1) if text.startswith("#!") else ("", text)
        text = "\n".join(filter(None, (first, shared, rest)))
    return Script(client, text)


def _run_all(client: redis.Redis, steps: Sequence[Step[Any]]) -> list[Any]:
    """Run steps in one round trip and return their replies.

    Scripts that Redis does not know are all loaded, and then run in one round trip again: of those, a process that dies
    has run all or none.
    """
    replies = _exchange(client, [step.command for step in steps])
    unknown = {
        position: step.script.script
        for position, (step, reply) in enumerate(zip(steps, replies, strict=True))
        if isinstance(reply, NoScriptError) and step.script is not None
    }
    if unknown:
        _exchange(client, [("SCRIPT", "LOAD", text) for text in unknown.values()])
        again = _exchange(client, [steps[position].command for position in unknown])
        for position, reply in zip(unknown, again, strict=True):
            replies[position] = reply
    return replies


def _exchange(client: redis.Redis, commands: Sequence[_Command]) -> list[Any]:
    """Send commands and read their replies, on a connection that stays out of the pool while it works.

    Lending one costs redis-py a lock, a look at the socket and its telemetry: as much as sending does. Packing goes
    past it too: it looks at each argument first.
    """
    idle = _idle_connections(client)
    try:
        connection = idle.pop()
    except IndexError:
        connection = client.connection_pool.get_connection()
        _wait_in_the_kernel(connection)
    try:
        connection.send_packed_command([b"".join(map(_pack, commands))])
        replies = [_read_reply(connection) for _ in commands]
    except BaseException as error:
        connection.disconnect()
        client.connection_pool.release(connection)
        if isinstance(error.__context__, BlockingIOError):  # the kernel's way to say that the time is over
            raise redis.TimeoutError("Redis does not answer in time") from error
        if isinstance(error, redis.ConnectionError):  # after a restart of Redis, all of them are dead
            _drop_idle_connections(client)
        raise
    idle.append(connection)
    return replies


def _wait_in_the_kernel(connection: Any) -> None:
    """Have the kernel end a socket's waiting, instead of Python, which asks it before each read and write.

    Each such question is a system call, for which a thread gives the interpreter away to hundreds of others.
    """
    seconds = connection.socket_timeout
    if not seconds or type(connection._sock) is not socket.socket:  # noqa: SLF001 - TLS waits otherwise
        return
    whole = int(seconds)
    time_value = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection._sock.setsockopt(socket.SOL_SOCKET, option, time_value)  # noqa: SLF001 - it has no other way
    connection._sock.settimeout(None)  # noqa: SLF001 - as above


def _idle_connections(client: redis.Redis) -> list[Any]:
    idle = _idle.get(client)
    return _idle.setdefault(client, []) if idle is None else idle


def _drop_idle_connections(client: redis.Redis) -> None:
    idle = _idle_connections(client)
    with suppress(IndexError):
        while True:
            connection = idle.pop()
            connection.disconnect()
            client.connection_pool.release(connection)


def _pack(command: _Command) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows tuples of one part alone
    return packed


def _read_reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:  # one script's, with the others' replies behind it
        return error


def _as_it_is(reply: Any) -> Any:
    return reply


#: Connections out of their client's pool that nobody uses now; taking and giving one is a single step of a list's.
_idle: WeakKeyDictionary[redis.Redis, list[Any]] = WeakKeyDictionary()
# A forked child must not read its parent's replies.
os.register_at_fork(after_in_child=_idle.clear)
