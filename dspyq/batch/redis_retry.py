"""Retry of Redis calls while Redis is down, with a report of each outage."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import redis
from kombu.exceptions import OperationalError

Result = TypeVar("Result")

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
#: Permanent errors: the same call fails again.
_LASTING = (redis.AuthenticationError, redis.exceptions.NoPermissionError)


class StoppedWaiting(Exception):
    """The batch was stopped while Redis was down."""


class RetryUntilStopped:
    """Retries calls while Redis is down.

    Args:
        stop: Set when the batch must end.
        report: Called with the error, once for each outage.
    """

    def __init__(self, stop: threading.Event, report: Callable[[str], None]) -> None:
        self._stop = stop
        self._report = report

    def __call__(self, call: Callable[[], Result]) -> Result:
        """Return the result of a call, which must be safe to repeat.

        Raises:
            StoppedWaiting: If the batch is stopped meanwhile.
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
                    self._report(f"{type(error).__name__}: {error}".splitlines()[0])
                if self._stop.wait(pause_seconds):
                    raise StoppedWaiting from error
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
