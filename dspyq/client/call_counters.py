"""What this process's own calls of ``predict`` came to. Counting costs a call a fraction of a microsecond."""

from __future__ import annotations

import functools
import os
import threading
from collections import Counter


class CallCounts:
    """Counts calls that asked Redis, and messages sent; hits in memory are counted by the memory cache itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._published: Counter[str] = Counter()

    def count_claim(self, verdict: str, model: str) -> None:
        """Count a call by what Redis said, for its variant's model."""
        with self._lock:
            self._verdicts[verdict, model] += 1

    def count_published(self, queue: str) -> None:
        """Count a message that was sent."""
        with self._lock:
            self._published[queue] += 1

    @property
    def verdicts(self) -> dict[tuple[str, str], int]:
        """The calls by verdict (of ``dspyq.cache.claims.Claim``) and model."""
        with self._lock:
            return dict(self._verdicts)

    @property
    def published(self) -> dict[str, int]:
        """The messages by queue."""
        with self._lock:
            return dict(self._published)


@functools.cache
def process_calls() -> CallCounts:
    """Return this process's counts."""
    return CallCounts()


# A forked child has made no calls yet, and its parent's lock may be held.
os.register_at_fork(after_in_child=process_calls.cache_clear)
