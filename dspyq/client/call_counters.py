"""Counters of this process's calls of ``predict``. They cost a call a fraction of a microsecond."""

from __future__ import annotations

import threading
from collections import Counter

from dspyq.core.runtime import after_fork


class CallCounts:
    """Counters of calls that reached Redis, and of messages sent; the memory cache counts its own hits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._verdicts: Counter[tuple[str, str]] = Counter()
        self._published: Counter[str] = Counter()

    def count_claim(self, verdict: str, model: str, number: int = 1) -> None:
        """Count calls by Redis's verdict, for their variant's model."""
        with self._lock:
            self._verdicts[verdict, model] += number

    def count_published(self, queue: str, number: int = 1) -> None:
        """Count messages that were sent."""
        with self._lock:
            self._published[queue] += number

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


def process_calls() -> CallCounts:
    """Return this process's counts, of all its configurations."""
    return _counts


def _begin() -> None:
    """Begin at zero: a forked child has made no calls yet, and its parent's lock may be held."""
    global _counts  # noqa: PLW0603 - one count of all calls of the process
    _counts = CallCounts()


_counts = CallCounts()
after_fork(_begin)
