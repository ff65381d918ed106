"""Waits for a Redis that is away, and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import redis
from kombu.exceptions import OperationalError

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
#: What Redis refuses for good: the same call fails again.
_LASTING = (redis.AuthenticationError, redis.exceptions.NoPermissionError)


class StoppedWaiting(Exception):
    """Redis was away when the batch was told to stop."""


class Patience:
    """Makes calls of Redis, again and again while it is away.

    Args:
        stop: Set when there is no time left to wait.
        tell: Called with what Redis said, once for each time it is away.
    """

    def __init__(self, stop: threading.Event, tell: Callable[[str], None]) -> None:
        self._stop = stop
        self._tell = tell

    def __call__(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns; it must bear to be made again.

        Raises:
            StoppedWaiting: If the batch was told to stop meanwhile.
            redis.RedisError: If Redis refuses it for good.
        """
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except _LASTING:
                raise
            except (redis.RedisError, OperationalError, OSError) as error:
                if pause_seconds == _FIRST_PAUSE_SECONDS:
                    self._tell(f"{type(error).__name__}: {error}".splitlines()[0])
                if self._stop.wait(pause_seconds):
                    raise StoppedWaiting from error
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
