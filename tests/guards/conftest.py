"""Fixtures of the guards' tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from dspyq.guards.rate_limit import RateLimiter, Reservation
from dspyq.store.scripts import run_together
from tests.support.rates import POLICY


@pytest.fixture
def limiter(client: redis.Redis) -> Callable[..., RateLimiter]:
    """A limiter as one more worker has it: ``limiter(requests_per_second=2)``."""
    return lambda **policy: RateLimiter(client, "m", replace(POLICY, **policy))


@pytest.fixture
def reserve(client: redis.Redis) -> Callable[..., Reservation]:
    """Reserve a turn: ``reserve(limiter, tokens)``."""

    def take(limiter: RateLimiter, tokens: int = 0, **options: Any) -> Reservation:
        return run_together(client, [limiter.reserve(tokens, **options)])[0]

    return take


@pytest.fixture
def correct(client: redis.Redis) -> Callable[[RateLimiter, int, int], Any]:
    """Correct a reservation: ``correct(limiter, reserved, used)``."""
    return lambda limiter, reserved, used: run_together(client, [limiter.correct(reserved, used)])
