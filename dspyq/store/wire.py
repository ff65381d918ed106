"""Redis commands in one round trip, on connections that this module keeps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
import redis
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.typing import EncodableT

from dspyq.core.kernel_timeouts import READ, WRITE, can_wait_in_kernel, set_kernel_timeout
from dspyq.core.runtime import after_fork

RedisCommand = tuple[EncodableT, ...]
#: Packed commands, and how many.
_Part = tuple[bytes, int]
#: A connection, and when it was given back, by the monotonic clock.
_Idle = tuple[Any, float]

#: Connections of a client that stay open while idle.
_MOST_IDLE = 8
#: How long others stay open after a peak.
_IDLE_SECONDS = 60.0
#: Bytes of commands after which they are sent, while further ones are made.
_BYTES_AT_ONCE = 64 * 2**10


class Line:
    """Connections of a client that stay out of its pool, also while idle.

    Taking one from its pool costs redis-py a lock, a poll of the socket and telemetry: as much as sending. Packing,
    sending and reading bypass redis-py too, which inspects each argument and passes each reply through five calls; a
    connection that was idle for so long that it is to be checked first is sent to by redis-py.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool = pool
        #: Taking and returning one is atomic, as one list operation.
        self._idle: list[_Idle] = []

    def exchange(self, packed: bytes, count: int, more: Iterable[_Part] = ()) -> list[Any]:
        """Send packed commands and read their replies; the error of a command is its reply.

        Args:
            packed: The commands.
            count: How many they are.
            more: Further ones, sent as they come: Redis runs the first while these are made.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        idle = self._idle
        try:
            connection, returned_at = idle.pop()
            is_fresh = time.monotonic() - returned_at < (connection.health_check_interval or _IDLE_SECONDS)
        except IndexError:
            connection, is_fresh = self._pool.get_connection(), True
            _wait_in_the_kernel(connection)
        try:
            sock = connection._sock  # noqa: SLF001 - there is no public way
            if is_fresh and sock is not None:
                sock.sendall(packed)
            else:
                connection.send_packed_command([packed])
            for part, number in more:
                connection._sock.sendall(part)  # noqa: SLF001 - as above
                count += number
            replies = _read_replies(connection, count)
        except BaseException as error:
            connection.disconnect()
            self._pool.release(connection)
            if (explained := self._explained(error)) is not error:
                raise explained from error
            raise
        now = time.monotonic()
        idle.append((connection, now))
        if len(idle) > _MOST_IDLE:
            self._close_oldest(now)
        return replies

    def close_idle(self) -> None:
        """Close the connections that no thread uses now."""
        with suppress(IndexError):
            while True:
                self._close(*self._idle.pop())

    def forget(self) -> None:
        """Leave the connections to the parent of this forked child, which reads their replies."""
        self._idle.clear()

    def _explained(self, error: BaseException) -> BaseException:
        """Return an error of a connection as one of redis-py's."""
        if isinstance(error, TimeoutError | BlockingIOError) or isinstance(error.__context__, BlockingIOError):
            return redis.TimeoutError("Redis does not answer in time")  # the kernel's timeouts are BlockingIOErrors
        if isinstance(error, OSError):
            error = redis.ConnectionError(f"the connection to Redis broke: {error.strerror or type(error).__name__}")
        if isinstance(error, redis.ConnectionError):  # after a restart of Redis, all of them are dead
            self.close_idle()
        return error

    def _close_oldest(self, now: float) -> None:
        """Close the connection idle for longest, if that is long enough; the last returned is taken next."""
        idle = self._idle
        with suppress(IndexError):  # other threads take all of them
            if now - idle[0][1] > _IDLE_SECONDS:
                self._close(*idle.pop(0))

    def _close(self, connection: Any, _: float) -> None:
        connection.disconnect()
        self._pool.release(connection)


def line_of(client: redis.Redis) -> Line:
    """Return the line of a client."""
    line = _lines.get(client)
    return _lines.setdefault(client, Line(client.connection_pool)) if line is None else line


def exchange(client: redis.Redis, commands: Iterable[RedisCommand]) -> list[Any]:
    """Send commands and read their replies, on a connection of the client's line.

    Those that are made one by one are sent in parts: Redis runs the first while the next are made.
    """
    if isinstance(commands, list):
        return line_of(client).exchange(b"".join(map(pack, commands)), len(commands))
    parts = _in_parts(commands)
    packed, count = next(parts, (b"", 0))
    return line_of(client).exchange(packed, count, parts) if count else []


def _in_parts(commands: Iterable[RedisCommand]) -> Iterator[_Part]:
    """Yield packed commands in parts that are worth sending."""
    part: list[bytes] = []
    size = 0
    for command in commands:
        part.append(pack(command))
        size += len(part[-1])
        if size >= _BYTES_AT_ONCE:
            yield b"".join(part), len(part)
            part, size = [], 0
    if part:
        yield b"".join(part), len(part)


def pack(command: RedisCommand) -> bytes:
    """Return a command as it is sent."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub allows tuples of one part alone
    return packed


def _read_replies(connection: Any, count: int) -> list[Any]:
    parser = connection._parser  # noqa: SLF001 - there is no public way
    sock, reader, buffer = connection._sock, parser._reader, parser._buffer  # noqa: SLF001 - as above
    if sock is None or reader is None:
        raise redis.ConnectionError("another thread closed the connection to Redis")
    replies: list[Any] = []
    reply = NOT_ENOUGH_DATA
    while True:
        if reply is NOT_ENOUGH_DATA:
            received = sock.recv_into(buffer)
            if not received:
                raise redis.ConnectionError("Redis closed the connection")
            reader.feed(buffer, 0, received)
        elif type(reply) is list:  # as of most scripts
            replies.append(reply)
        elif isinstance(reply, redis.ConnectionError):  # such as that Redis still loads its data
            raise reply
        elif isinstance(reply, hiredis.PushNotification):
            parser.handle_push_response(reply)
        else:
            replies.append(reply)
        if len(replies) == count:
            return replies
        reply = reader.gets()


def _wait_in_the_kernel(connection: Any) -> None:
    seconds, sock = connection.socket_timeout, connection._sock  # noqa: SLF001 - there is no public way
    if seconds and can_wait_in_kernel(sock):
        set_kernel_timeout(sock, seconds, READ, WRITE)
        sock.settimeout(None)


def _forget_all() -> None:
    for line in list(_lines.values()):
        line.forget()


_lines: WeakKeyDictionary[redis.Redis, Line] = WeakKeyDictionary()
# A forked child must not read its parent's replies.
after_fork(_forget_all)
