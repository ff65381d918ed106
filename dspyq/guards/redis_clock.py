"""Redis's clock in local monotonic time, so that a thread can act at a time set by a script."""

from __future__ import annotations

import threading

#: Assumed drift of two clocks; more than that of synchronized ones.
_DRIFT_SECONDS_PER_SECOND = 0.001


class RedisClock:
    """Maps Redis's times to the local monotonic clock, by the fastest reply: others were only delayed more.

    A reply that took long does not make its time less exact, and what the quickest takes is the same for every call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._offset_seconds = float("inf")
        self._learned_at = 0.0

    def local(self, redis_seconds: float, asked_at: float, replied_at: float) -> float:
        """Return the local monotonic time of a reply's time of Redis, and adjust the offset by its delay.

        Args:
            redis_seconds: Redis's time when it ran the script.
            asked_at: The local monotonic time before it was asked.
            replied_at: That after its reply.
        """
        with self._lock:
            drift = _DRIFT_SECONDS_PER_SECOND * max(0.0, replied_at - self._learned_at)
            offset = min(self._offset_seconds + drift, replied_at - redis_seconds)
            if redis_seconds + offset < asked_at - drift:  # before it was asked: its clock was set back, or is another
                offset = replied_at - redis_seconds
            self._offset_seconds, self._learned_at = offset, replied_at
            return redis_seconds + offset
