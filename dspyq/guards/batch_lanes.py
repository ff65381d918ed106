"""The lanes that batches state in their accounts, as a worker reads them."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import NamedTuple, cast

import redis

from dspyq.core.events import Event
from dspyq.store.keys import batch_account_key
from dspyq.store.scripts import load_script

logger = logging.getLogger("dspyq.guards")

#: A batch may be resumed in another lane, and its rest begins at any time.
_FRESH_SECONDS = 2.0
_MOST_KEPT = 1000
#: Lanes of batches whose live calls are made at the flex tier: from the start, or once the hour of its end is near.
_FLEX = frozenset({"flex", "provider,flex"})
#: Lanes of batches that leave the provider's lane, as their hour is near.
_LEAVING = frozenset({"provider,flex", "provider,live"})


class BatchLane(NamedTuple):
    """The lane of a batch.

    Attributes:
        name: ``provider``; ``provider,stop`` for one whose rest is not made live; ``provider,flex`` or
            ``provider,live`` for one that leaves the lane, as its hour is near; ``flex``; or empty for live calls.
        is_in_rest: Whether its money buys too few calls at once for the lane: what has not begun leaves it.
    """

    name: str
    is_in_rest: bool = False

    @property
    def is_of_provider(self) -> bool:
        """True if its calls go, or went, through the provider's batch interface."""
        return self.name.startswith("provider")

    @property
    def is_left(self) -> bool:
        """True if it leaves the provider's lane."""
        return self.name in _LEAVING

    @property
    def is_flex(self) -> bool:
        """True if its live calls are made at the flex tier."""
        return self.name in _FLEX

    @property
    def rest_goes_live(self) -> bool:
        """True if what the lane has no money for is made live."""
        return self.name == "provider"


class BatchLanes:
    """The lanes of batches, read from Redis and kept for a moment. Any thread may ask.

    Args:
        client: The Redis of money.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._begin_rest = load_script(client, "dspyq.guards", "begin_rest")
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[float, BatchLane]] = OrderedDict()

    def of(self, batch: str) -> BatchLane:
        """Return the lane that a batch states, or has stated a moment ago.

        Raises:
            redis.RedisError: If Redis does not answer, and the lane was never read: a live call may cost twice as much.
        """
        known = self._known.get(batch)
        if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS:
            return known[1]
        try:
            return self.read(batch)
        except redis.RedisError as error:
            if known is None:
                raise
            logger.warning(Event("lane_of_batch_not_read", batch=batch, error=type(error).__name__))
            return known[1]  # what was read before stands

    def read(self, batch: str) -> BatchLane:
        """Return the lane that a batch states now.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        now = time.monotonic()
        stated = cast("list[bytes | None]", self._client.hmget(batch_account_key(batch), "lane", "is_in_rest"))
        lane = BatchLane((stated[0] or b"").decode(), stated[1] is not None)
        with self._lock:
            self._known[batch] = now, lane
            while len(self._known) > _MOST_KEPT:
                self._known.popitem(last=False)
        return lane

    def begin_rest(self, batch: str) -> BatchLane:
        """Note that a batch's money buys too few calls at once for its lane; return its lane.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        return BatchLane(self._begin_rest(batch=batch).decode(), is_in_rest=True)
