"""Parts that the tests of the rate limit and of the provider's gate share."""

from __future__ import annotations

from typing import Any

import pytest

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


def about(seconds: float) -> Any:
    """Seconds from now, when some have passed on a slow machine."""
    return pytest.approx(seconds, abs=0.25)
