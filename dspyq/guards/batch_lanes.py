"""The lanes that batches state in their accounts, as a worker reads them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import cast

import redis

from dspyq.core.events import Event
from dspyq.store.keys import batch_account_key

logger = logging.getLogger("dspyq.guards")

#: A batch may be resumed in another lane.
_FRESH_SECONDS = 2.0
_MOST_KEPT = 1000


class BatchLanes:
    """The lanes of batches, read from Redis and kept for a moment. Any thread may ask.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def of(self, batch: str) -> str:
        """Return the lane that a batch states: ``provider``, ``flex``, or empty for live calls.

        A batch that leaves the provider's lane, as its hour is near, states ``provider,flex`` or ``provider,live``.
        """
        now = time.monotonic()
        read_at, lane = self._known.get(batch, (float("-inf"), ""))
        if now - read_at < _FRESH_SECONDS:
            return lane
        try:
            stated = cast("bytes | None", self._client.hget(batch_account_key(batch), "lane"))
            lane = (stated or b"").decode()
        except (
            redis.RedisError
        ) as error:  # what was read before stands; a live call would cost more, never more than held
            logger.warning(Event("lane_of_batch_not_read", batch=batch, error=type(error).__name__))
            return lane
        with self._lock:
            self._known[batch] = now, lane
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return lane
