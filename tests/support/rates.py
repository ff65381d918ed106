"""Parts that the tests of the rate limit and of the provider's gate share."""

from __future__ import annotations

import time
from typing import Any

from dspyq.guards.provider_gate import GatePolicy
from dspyq.guards.rate_limit import RateLimitPolicy

KEY = "dspy:v1:rate:m"
#: Without limits; each test adds its own.
POLICY = RateLimitPolicy(
    requests_per_second=None,
    burst_requests=1,
    tokens_per_minute=None,
    longest_wait_seconds=2,
    gate=GatePolicy(max_retry_after_seconds=3, account_pause_seconds=60, max_account_pause_seconds=200),
)


class _Shrinking:
    """A wait that began within the test: as long as the rule states, less what has passed since, on any machine."""

    def __init__(self, seconds: float, began_at: float) -> None:
        self._seconds = seconds
        self._began_at = began_at

    def __eq__(self, seen: object) -> bool:
        if not isinstance(seen, int | float):
            return NotImplemented
        passed_seconds = time.monotonic() - self._began_at
        inexact_seconds = 0.002 + 0.002 * self._seconds  # of expectations of three digits, and of two clocks
        return self._seconds - passed_seconds - inexact_seconds <= seen <= self._seconds + inexact_seconds

    def __hash__(self) -> int:
        return hash(self._seconds)

    def __repr__(self) -> str:
        return f"{self._seconds:g} s, less what has passed"


def about(seconds: float, began_at: float | None = None) -> Any:
    """Return a wait that equals those of this length, less the time since it began.

    Args:
        seconds: The wait at its beginning.
        began_at: A monotonic time before that; the beginning of the test where left out.
    """
    return _Shrinking(seconds, _test_began_at[0] if began_at is None else began_at)


def begin_waits() -> None:
    """Take now for the beginning of the test."""
    _test_began_at[0] = time.monotonic()


_test_began_at = [0.0]
