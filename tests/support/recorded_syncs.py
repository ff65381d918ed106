"""Notes when a process began to wait for a Redis's disk, once it has waited, in the file that ``TEST_SYNCS`` names.

Named in ``workers.imports``. What was written before must survive Redis, for the process goes on from there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import redis

from dspyq.lane import disk, journal
from dspyq.store.wire import RedisCommand

_wait = disk.wait_for_disk


def _recorded(client: redis.Redis, mark: RedisCommand) -> None:
    began_at = time.monotonic()
    _wait(client, mark)
    with Path(os.environ["TEST_SYNCS"]).open("a", encoding="utf-8") as file:
        file.write(f"{client.connection_pool.connection_kwargs['port']} {began_at}\n")


disk.wait_for_disk = journal.wait_for_disk = _recorded
