"""Removal and count of comments that callers wrote on answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from dspyq.retention.removal import Removal, scan
from dspyq.sealing.keyring import is_envelope, key_id_of
from dspyq.store.clients import jobs_client
from dspyq.store.keys import judgements_key

_COMMENT = b"comment:"


def remove_comments(key_id: str, removal: Removal) -> None:
    """Delete the comments that are sealed with a tenant's key.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    for name, fields in _comments():
        own = [
            field for field, stored in fields.items() if is_envelope(stored) and key_id_of(stored) == key_id.encode()
        ]
        removal.comments += int(jobs_client().hdel(name, *own)) if own else 0


def count_comments() -> int:
    """Return the number of comments.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    return sum(len(fields) for _, fields in _comments())


def _comments() -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    client = jobs_client()
    for names in scan(client, judgements_key("")):
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.hgetall(name)
        for name, stored in zip(names, cast("list[dict[bytes, bytes]]", pipeline.execute()), strict=True):
            if found := {field: value for field, value in stored.items() if field.startswith(_COMMENT)}:
                yield name, found
