"""Measures the cache in Redis for the whole fleet: one worker at a time does, about each minute, and all read it.

Answers expire by themselves, so nobody can count their bytes as they come and go: each has to be looked at. The larger
the cache, the less often that is done, so that it takes a small share of Redis's time.
"""

from __future__ import annotations

import logging
import threading
import time

import redis

from dspyq.cache.admin import measure_cache
from dspyq.core.events import Event
from dspyq.store.clients import KEY_PREFIX, jobs_client

logger = logging.getLogger("dspyq.metrics")

#: A hash: entries, bytes.
CACHE_SIZE_KEY = f"{KEY_PREFIX}cache-size"
#: There while it is not yet time to measure again.
_FRESH_KEY = f"{KEY_PREFIX}cache-size-fresh"
_FRESH_SECONDS = 60
#: Measuring takes no more than this share of the time.
_SHARE = 0.05
_LOOK_SECONDS = 2.0


class CacheSize:
    """Measures the cache when it is time.

    Attributes:
        failures: How often Redis did not answer.
    """

    def __init__(self) -> None:
        self.failures = 0

    def start(self) -> None:
        """Start the thread that looks whether it is time."""
        threading.Thread(target=self._run, name="dspyq-cache-size", daemon=True).start()

    def measure(self) -> bool:
        """Measure the cache if it is time; return whether it was.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        client = jobs_client()
        if not client.set(_FRESH_KEY, "", nx=True, ex=_FRESH_SECONDS):
            return False
        began_at = time.monotonic()
        entries, size_bytes = measure_cache()
        client.hset(CACHE_SIZE_KEY, mapping={"entries": entries, "bytes": size_bytes})
        seconds = time.monotonic() - began_at
        client.set(_FRESH_KEY, "", ex=max(_FRESH_SECONDS, int(seconds / _SHARE)))
        return True

    def _run(self) -> None:
        while True:
            try:
                self.measure()
            except redis.RedisError as error:
                self.failures += 1
                logger.warning(Event("cache_size_not_measured", error=f"{type(error).__name__}: {error}"))
            time.sleep(_LOOK_SECONDS)
