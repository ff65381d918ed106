"""Fixtures of the guards' tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis

from dspyq.guards.budget import Budget
from dspyq.guards.rate_limit import RateLimiter, Reservation
from dspyq.store.scripts import run_together
from tests.support.budgets import NANO, Calendar, settings
from tests.support.rates import POLICY, begin_waits


@pytest.fixture(autouse=True)
def waits_begin() -> None:
    """Note when the test began."""
    begin_waits()


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


@pytest.fixture
def make(client: redis.Redis) -> Callable[..., Budget]:
    """Make a budget whose limits are in nano-dollars, so that tests count in small numbers."""

    def make_budget(
        daily: int | None = None, monthly: int | None = None, *, calendar: Any = None, **tables: Any
    ) -> Budget:
        def usd(nano: int | None) -> float | None:
            return None if nano is None else nano / NANO

        program = {f"{period}_usd": usd(tables.pop(f"program_{period}", None)) for period in ("daily", "monthly")}
        variant = {f"{period}_usd": usd(tables.pop(f"variant_{period}", None)) for period in ("daily", "monthly")}
        made = settings(usd(daily), usd(monthly), program=program, variant=variant, **tables)
        return Budget(client, made, calendar or Calendar())

    return make_budget
