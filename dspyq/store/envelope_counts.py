"""Count of envelopes in Redis, by the key that each names."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import orjson
import redis

from dspyq.sealing.keyring import ID_BYTES, MAGIC, is_envelope, key_id_of
from dspyq.sealing.refusals import shown_id
from dspyq.store.key_bases import key_base, money_base
from dspyq.store.keys import key_starts

#: Stands for content that is not sealed.
PLAIN = "plain"
_HEAD_BYTES = len(MAGIC) + ID_BYTES
_AT_ONCE = 500
_BODY_CHARACTERS = 4 * _HEAD_BYTES


def count_envelopes(clients: list[redis.Redis], advance: Callable[[int], object]) -> Counter[str]:
    """Return the number of pieces of content by the id of their key; those in plain text as ``plain``.

    They are those of the active spine, and outside of spines those of what the fleet has once.

    Args:
        clients: The Redis of jobs and, where it is another one, that of answers.
        advance: Called with the number of keys that were looked at.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    found: Counter[str] = Counter()
    starts = key_starts()
    readers = {
        starts[kind]: read
        for kind, read in (
            ("RESULT", _of_strings),
            ("STREAM", _of_strings),
            ("JOB", _of_jobs),
            ("CALLS", _of_hashes),
            ("EXPERIMENT_UNSCORED", _of_hashes),
            ("EXPERIMENT_ROWS", _of_streams),
            ("CHORD", _of_parts),
            ("TENANT_KEYS", _of_tenant_keys),
            ("LANE", _of_lanes),
            ("JUDGEMENTS", _of_judgements),
        )
        if kind in starts  # where no spine of a cluster is active, those of the fleet alone
    }
    base = (key_base() if "JOB" in starts else money_base()) + "*"
    for client in clients:
        for names in _names(client, base):
            for start, read in readers.items():
                if some := [name for name in names if name.startswith(start.encode())]:
                    for stored in read(client, some):
                        found[_key_of(stored)] += 1
            advance(len(names))
    return found


def _key_of(stored: bytes) -> str:
    """Return the id of the key of content, of which the start is enough; ``plain`` for none."""
    return shown_id(key_id_of(stored).decode("ascii", "replace")) if is_envelope(stored) else PLAIN


def _names(client: redis.Redis, pattern: str) -> Iterator[list[bytes]]:
    cursor: Any = 0
    while True:
        cursor, names = cast("tuple[int, list[bytes]]", client.scan(cursor, pattern, _AT_ONCE))
        if names:
            yield names
        if not cursor:
            return


def _each(client: redis.Redis, command: Callable[[Any, bytes], object], names: list[bytes]) -> Iterator[Any]:
    """Yield the replies to a command for each key; none for a key of another type."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        command(pipeline, name)
    yield from (reply for reply in pipeline.execute(raise_on_error=False) if not isinstance(reply, Exception))


def _of_strings(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    # A stream's entry begins with its length; the first one stands for all.
    for stored in _each(client, lambda pipeline, name: pipeline.getrange(name, 0, 40), names):
        if stored:
            yield stored.partition(b"\n")[2] if stored[:1].isdigit() else stored


def _of_jobs(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    for message in _each(client, lambda pipeline, name: pipeline.hget(name, "message"), names):
        try:
            body = orjson.loads(message or b"")["body"][:_BODY_CHARACTERS]
            yield base64.b64decode(body[: len(body) // 4 * 4])
        except (ValueError, TypeError, LookupError):
            continue


def _of_hashes(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    for fields in _each(client, lambda pipeline, name: pipeline.hgetall(name), names):
        for name, stored in fields.items():
            if name.startswith((b"reply:", b"failure:")) or is_envelope(stored):
                yield stored


def _of_lanes(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    # Thousands of requests may wait in one hash: they are not read at once.
    for name in names:
        if name.endswith((b":bodies", b":salvaged")):
            yield from (stored for _, stored in client.hscan_iter(name, count=_AT_ONCE))


def _of_judgements(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    for fields in _each(client, lambda pipeline, name: pipeline.hgetall(name), names):
        yield from (stored for name, stored in fields.items() if name.startswith(b"comment:"))


def _of_tenant_keys(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    for fields in _each(client, lambda pipeline, name: pipeline.hgetall(name), names):
        yield from (stored.partition(b" ")[2] for name, stored in fields.items() if name.startswith(b"of:"))


def _of_streams(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    for entries in _each(client, lambda pipeline, name: pipeline.xrange(name), names):
        for _, fields in entries:
            yield fields.get(b"row", b"").split(b" ", 2)[-1]


def _of_parts(client: redis.Redis, names: list[bytes]) -> Iterator[bytes]:
    for parts in _each(client, lambda pipeline, name: pipeline.lrange(name, 0, -1), names):
        yield from parts
    for parts in _each(client, lambda pipeline, name: pipeline.zrange(name, 0, -1), names):
        yield from parts
