"""The use of pybreaker by dspyq.guards.breaker: a storage of its own, and listeners."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pybreaker
import pytest

from tests.support.contracts import parameters


class Storage(pybreaker.CircuitBreakerStorage):
    """Counts nothing itself, as ours: it writes down what it is told."""

    def __init__(self) -> None:
        super().__init__("contract")
        self.told: list[str] = []
        self.state_now = "closed"

    @property
    def state(self) -> str:
        return self.state_now

    @state.setter
    def state(self, state: str) -> None:
        self.told.append(f"state {state}")

    @property
    def opened_at(self) -> datetime:
        return datetime.now(UTC)

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:  # noqa: ARG002 - the library's name
        self.told.append("opened_at")

    @property
    def counter(self) -> int:
        return 0

    @property
    def success_counter(self) -> int:
        return 0

    def increment_counter(self) -> None:
        self.told.append("failed")

    def reset_counter(self) -> None:
        self.told.append("reset")

    def increment_success_counter(self) -> None:
        self.told.append("succeeded")

    def reset_success_counter(self) -> None:
        self.told.append("reset successes")


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        (pybreaker.CircuitBreaker, "calling", "self"),
        (pybreaker.CircuitBreakerListener, "before_call", "self cb func *args **kwargs"),
        (pybreaker.CircuitBreakerListener, "success", "self cb"),
        (pybreaker.CircuitBreakerListener, "state_change", "self cb old_state new_state"),
        (pybreaker.CircuitBreakerStorage, "increment_counter", "self"),
        (pybreaker.CircuitBreakerStorage, "increment_success_counter", "self"),
        (pybreaker.CircuitBreakerStorage, "counter", "property"),
        (pybreaker.CircuitBreakerStorage, "success_counter", "property"),
        (pybreaker.CircuitBreakerStorage, "opened_at", "property"),
        (pybreaker.CircuitBreakerStorage, "state", "property"),
    ],
)
def test_what_is_overridden_has_its_parameters(owner: type, name: str, expected: str) -> None:
    assert parameters(owner, name) == expected


def call(breaker: Any, error: Exception | None = None) -> None:
    with breaker.calling():
        if error is not None:
            raise error


def test_a_storage_counts_each_call_and_a_neutral_error_as_a_success() -> None:
    storage = Storage()
    neutral: list[type] = [KeyError]
    breaker = pybreaker.CircuitBreaker(
        fail_max=3,
        state_storage=storage,
        exclude=[lambda error: type(error) in neutral],
        throw_new_error_on_trip=False,
    )
    storage.told.clear()
    with pytest.raises(ValueError, match="ill"):
        call(breaker, ValueError("ill"))
    assert storage.told == ["failed"]
    storage.told.clear()
    with pytest.raises(KeyError):
        call(breaker, KeyError("neutral"))
    assert "failed" not in storage.told
    storage.state_now = "half-open"
    storage.told.clear()
    call(breaker)
    assert "succeeded" in storage.told
