"""Redis's times on the local clock."""

import pytest

from dspyq.guards.redis_clock import RedisClock


def test_a_slow_reply_s_time_is_placed_by_the_quickest():
    clock = RedisClock()
    assert clock.local(1000, asked_at=5, replied_at=5.001) == pytest.approx(5.001)
    assert clock.local(1001, asked_at=6, replied_at=6.5) == pytest.approx(6.001, abs=0.002)


def test_a_quicker_reply_is_learned_from():
    clock = RedisClock()
    clock.local(1000, asked_at=5, replied_at=5.3)
    assert clock.local(1001, asked_at=6.1, replied_at=6.2) == pytest.approx(6.2)
    assert clock.local(1002, asked_at=7, replied_at=9) == pytest.approx(7.2, abs=0.004)


@pytest.mark.parametrize("step_seconds", [-3600, -0.5, 0.5, 3600])
def test_a_clock_that_is_set_anew_is_followed_at_once(step_seconds):
    clock = RedisClock()
    clock.local(10_000, asked_at=5, replied_at=5.001)
    assert clock.local(10_001 + step_seconds, asked_at=6, replied_at=6.001) == pytest.approx(6.001, abs=0.003)
