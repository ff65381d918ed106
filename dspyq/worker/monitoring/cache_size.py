"""Size of the cache in Redis for the whole fleet: measured by one worker about once a minute, and read by all.

Answers expire in Redis without an event, so their bytes cannot be counted as they go: each must be read. The larger
the cache, the less often that is done, so that it takes a small share of Redis's time.
"""

from __future__ import annotations

import logging
import threading
import time

import redis

from dspyq.cache.admin import measure_cache
from dspyq.core.events import Event
from dspyq.core.tolerated import survived
from dspyq.store.clients import money_client
from dspyq.store.keys import key
from dspyq.store.spines import each_spine

logger = logging.getLogger("dspyq.metrics")

#: A hash: entries, bytes.
CACHE_SIZE = "cache-size"
#: Key that exists until the next measurement is due.
_FRESH = "cache-size-fresh"
_FRESH_SECONDS = 60
#: Largest share of time spent on measuring.
_SHARE = 0.05
_LOOK_SECONDS = 2.0


class CacheSize:
    """Measures the cache when due.

    Attributes:
        failures: Number of times that Redis did not answer.
    """

    def __init__(self) -> None:
        self.failures = 0

    def start(self) -> None:
        """Start the thread that measures when due."""
        threading.Thread(target=self._run, name="dspyq-cache-size", daemon=True).start()

    def measure(self) -> bool:
        """Measure the cache if due; return True if it was.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        client = money_client()
        if not client.set(key(_FRESH), "", nx=True, ex=_FRESH_SECONDS):
            return False
        began_at = time.monotonic()
        entries = size_bytes = 0
        for _ in each_spine():
            found, found_bytes = measure_cache()
            entries, size_bytes = entries + found, size_bytes + found_bytes
        client.hset(key(CACHE_SIZE), mapping={"entries": entries, "bytes": size_bytes})
        seconds = time.monotonic() - began_at
        client.set(key(_FRESH), "", ex=max(_FRESH_SECONDS, int(seconds / _SHARE)))
        return True

    def _try_to_measure(self) -> None:
        try:
            self.measure()
        except redis.RedisError as error:
            self.failures += 1
            logger.warning(Event("cache_size_not_measured", error=f"{type(error).__name__}: {error}"))

    def _run(self) -> None:
        while True:
            with survived("cache_size_thread"):
                self._try_to_measure()
            time.sleep(_LOOK_SECONDS)
