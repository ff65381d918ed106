"""Waits for Redis's disk, before a step that must not be taken twice.

Redis waits for what the connection of WAITAOF has written itself, and for all that any connection wrote before. So a
write of no consequence goes before it over the same connection: the scripts' connections are others.
"""

from __future__ import annotations

import logging
from typing import Any

import redis

from dspyq.core.events import Event
from dspyq.store.keys import SECONDS_OF_BOOKS, batch_account_key
from dspyq.store.scripts import command_step, run_each
from dspyq.store.wire import RedisCommand

logger = logging.getLogger("dspyq.lane")

#: Longer than Redis takes from one write to its disk to the next, in parts shorter than a reply may take.
_ATTEMPTS, _MILLISECONDS = 8, 1000


def wait_for_disk(client: redis.Redis, mark: RedisCommand) -> None:
    """Wait until all that was written to Redis so far is on its disk, where it keeps a file of all writes.

    With ``appendfsync everysec`` that takes up to a second. A Redis that was killed meanwhile may have lost what was
    written before: read it again. What is there then is on the disk.

    Args:
        client: The Redis.
        mark: A write of no consequence, which Redis writes down each time.

    Raises:
        redis.TimeoutError: If the disk takes longer than some seconds.
    """
    wait = command_step(_as_it_is, "WAITAOF", 1, 0, _MILLISECONDS)
    marked, *waited = run_each(client, [command_step(_as_it_is, *mark), *[wait] * _ATTEMPTS])
    if isinstance(marked, redis.RedisError):
        raise marked
    if any(not isinstance(reply, redis.ResponseError) and reply[0] for reply in waited):
        return
    if all(isinstance(reply, redis.ResponseError) for reply in waited):
        if isinstance(waited[0], redis.exceptions.NoPermissionError):
            logger.warning(Event("disk_not_awaited", advice="give the user of Redis its rights: dspyq users"))
        return  # it keeps no such file, or is too old: then a restart of Redis may repeat a step
    if _never_waits_for_disk(client):
        return
    raise redis.TimeoutError(
        "Redis has not written its append-only file to the disk (WAITAOF); check its disk, or set its appendfsync to "
        "everysec"
    )


def wait_for_disk_of_money(client: redis.Redis, batch: str) -> None:
    """Wait until all that was written to the Redis of money so far is on its disk; see ``wait_for_disk``.

    Args:
        client: The Redis of money.
        batch: A batch whose account is open there.

    Raises:
        redis.TimeoutError: If the disk takes longer than some seconds.
    """
    wait_for_disk(client, ("EXPIRE", batch_account_key(batch), SECONDS_OF_BOOKS))


def _never_waits_for_disk(client: redis.Redis) -> bool:
    """Return True if Redis leaves it to its system when its file is written: as without the file, then."""
    try:
        return bool(client.config_get("appendfsync").get("appendfsync") == "no")
    except redis.ResponseError:  # this user may not ask
        return False


def _as_it_is(reply: Any) -> Any:
    return reply
