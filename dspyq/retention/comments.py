"""Removal and count of comments that callers wrote on answers.

Beside each stands the hour in which it was given and its caller's tenant; not beside those of versions before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from dspyq.retention.removal import Removal, scan
from dspyq.sealing.keyring import TENANT_MARK, is_envelope, key_id_of
from dspyq.store.clients import jobs_client
from dspyq.store.keys import judgements_key
from dspyq.store.spines import each_spine

_COMMENT, _GIVEN = b"comment:", b"given:"
_HOUR_SECONDS = 3600
_OF_THAT_HOUR = "comments on answers of the hour of that moment: {:,}; they state no minute: forget a later moment"
_TIMELESS = "comments on answers that state no time: {:,}; they end by themselves"
_NAMELESS = "comments on answers that name no tenant and are sealed with no tenant's key: {:,}; they end by themselves"


class _Comment(NamedTuple):
    """A comment as it is kept.

    Attributes:
        name: The judgement's.
        key_id: The id of the key that sealed it; empty where none did.
        hour: When it was given, in whole hours since 1970; None where that is not kept.
        tenant: The caller's tenant; empty for none, and where that is not kept.
    """

    name: bytes
    key_id: bytes
    hour: int | None
    tenant: str


def remove_comments_of(tenant: str, key_id: str, removal: Removal) -> None:
    """Delete a tenant's comments, and those that are sealed with its key; state how many others might be its.

    Args:
        tenant: The tenant.
        key_id: The id of its key; empty for none.
        removal: Counts and states them.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    own_key, nameless = key_id.encode(), 0
    for comment in _remove(lambda each: each.tenant == tenant or bool(own_key and each.key_id == own_key), removal):
        nameless += comment.hour is None and not comment.key_id.startswith(TENANT_MARK)
    if nameless:
        removal.not_reached.append(_NAMELESS.format(nameless))


def remove_comments_before(moment: float, removal: Removal) -> None:
    """Delete comments of the hours that ended by a moment, in seconds since 1970; state those that may be older.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    hour, into_hour_seconds = divmod(moment, _HOUR_SECONDS)
    timeless = of_that_hour = 0
    for comment in _remove(lambda each: each.hour is not None and each.hour < hour, removal):
        timeless += comment.hour is None
        of_that_hour += comment.hour == hour and into_hour_seconds > 0
    if of_that_hour:
        removal.not_reached.append(_OF_THAT_HOUR.format(of_that_hour))
    if timeless:
        removal.not_reached.append(_TIMELESS.format(timeless))


def _remove(is_wanted: Callable[[_Comment], bool], removal: Removal) -> Iterator[_Comment]:
    """Delete the comments that are wanted, and yield the others; of all spines, one after another."""
    for _ in each_spine():
        for key, comments in _comments():
            gone = []
            for each in comments:
                if is_wanted(each):
                    gone.append(each.name)
                else:
                    yield each
            if gone:
                removal.comments += len(gone)
                jobs_client().hdel(key, *(field + name for name in gone for field in (_COMMENT, _GIVEN)))


def _comments() -> Iterator[tuple[bytes, list[_Comment]]]:
    client = jobs_client()
    for keys in scan(client, judgements_key("")):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hgetall(key)
        for key, fields in zip(keys, cast("list[dict[bytes, bytes]]", pipeline.execute()), strict=True):
            names = [field.removeprefix(_COMMENT) for field in fields if field.startswith(_COMMENT)]
            if names:
                yield key, [_read(name, fields[_COMMENT + name], fields.get(_GIVEN + name, b"")) for name in names]


def _read(name: bytes, stored: bytes, given: bytes) -> _Comment:
    hour, _, tenant = given.decode(errors="replace").partition(" ")
    key_id = key_id_of(stored) if is_envelope(stored) else b""
    return _Comment(name, key_id, int(hour) if hour.isdecimal() else None, tenant)
