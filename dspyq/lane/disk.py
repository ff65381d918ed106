"""Waits for Redis's disk, before a step that must not be taken twice."""

from __future__ import annotations

import redis

#: Longer than Redis takes from one write to its disk to the next, in parts shorter than a reply may take.
_ATTEMPTS, _MILLISECONDS = 8, 1000


def wait_for_disk(client: redis.Redis) -> None:
    """Wait until what this connection has written is on Redis's disk, where Redis keeps a file of all writes.

    With ``appendfsync everysec`` that takes up to a second, and a wait that ends before it has secured nothing.

    Raises:
        redis.TimeoutError: If the disk takes longer than some seconds.
    """
    for _ in range(_ATTEMPTS):
        try:
            on_disk, _ = client.execute_command("WAITAOF", 1, 0, _MILLISECONDS)
        except redis.ResponseError:  # it keeps none, or is too old: then a restart of Redis may repeat a step
            return
        if on_disk:
            return
    raise redis.TimeoutError("Redis does not write its append-only file to the disk (WAITAOF)")
