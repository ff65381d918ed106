"""The lanes that batches ask for, as their accounts state them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import cast

import redis

from dspyq.store.keys import batch_account_key

_FRESH_SECONDS = 5.0
_MOST_KEPT = 1_000


class BatchLanes:
    """The lanes of batches, read at most once in some seconds each: a batch may be run again with another one.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def lane_of(self, batch: str) -> str:
        """Return the lane of a batch; empty for live calls.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        read_until, lane = self._known.get(batch, (0.0, ""))
        if read_until > time.monotonic():
            return lane
        lane = (cast("bytes | None", self._client.hget(batch_account_key(batch), "lane")) or b"").decode()
        with self._lock:
            self._known[batch] = time.monotonic() + _FRESH_SECONDS, lane
            if len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return lane
