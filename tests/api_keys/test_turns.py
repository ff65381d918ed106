"""Rates of keys, on a real Redis: never exceeded over several processes, and few round trips."""

from __future__ import annotations

import asyncio
import bisect
import time

import pytest

from dspyq.api_keys.turns import Turnstiles, _Pace, _take
from dspyq.config.key_grants import KeyGrant

pytestmark = pytest.mark.usefixtures("configured")


def scripts_run(redis_server):
    with redis_server.client() as client:
        return client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


async def admitted(turnstiles, grant, seconds):
    """The times of the requests that one process lets in, which asks as fast as it can."""
    times, ends_at = [], time.monotonic() + seconds
    while time.monotonic() < ends_at:
        turn = await turnstiles.pass_through("k", grant)
        if turn.wait_seconds is None:
            times.append(time.monotonic())
        await asyncio.sleep(0.001)
    return times


@pytest.mark.parametrize(("rate", "burst"), [(100.0, 20), (50.0, None), (30.0, 2), (5.0, 1)])
def test_several_processes_together_never_exceed_a_rate(rate, burst):
    grant = KeyGrant(rate=rate, burst=burst)

    async def ask():
        return await asyncio.gather(*(admitted(Turnstiles(), grant, 1.0) for _ in range(4)))

    times = sorted(at for each in asyncio.run(ask()) for at in each)
    assert len(times) >= rate * 0.2  # some turns are lost with the leases of four processes
    for start, first in enumerate(times):
        for span in (0.05, 0.2, 0.5):
            seen = bisect.bisect_right(times, first + span) - start
            # The time at which a process notes a turn is not that of Redis: half of 0.1 s is for a busy machine.
            assert seen <= grant.burst_requests + rate * (span + 0.05) + 1, (start, span)


def test_a_burst_is_let_in_at_once_and_the_next_states_its_wait():
    async def ask():
        return [await turnstiles.pass_through("k", grant) for _ in range(4)]

    turnstiles, grant = Turnstiles(), KeyGrant(rate=0.1, burst=3)
    turns = asyncio.run(ask())
    assert [turn.wait_seconds is None for turn in turns] == [True, True, True, False]
    assert [turn.left for turn in turns] == [2, 1, 0, 0]
    assert 8 < turns[-1].wait_seconds <= 10
    assert 20 < turns[-1].full_seconds <= 30


def test_turns_of_a_tenth_of_a_second_are_taken_in_one_script(redis_server):
    async def ask():
        return [await turnstiles.pass_through("k", grant) for _ in range(50)]

    turnstiles, grant = Turnstiles(), KeyGrant(rate=1000, burst=1000)
    asyncio.run(ask())
    before = scripts_run(redis_server)
    asyncio.run(ask())
    assert scripts_run(redis_server) - before <= 10  # one, unless the machine is busy


def test_refused_requests_do_not_ask_redis(redis_server):
    async def ask(number):
        return [await turnstiles.pass_through("k", grant) for _ in range(number)]

    turnstiles, grant = Turnstiles(), KeyGrant(rate=0.01, burst=1)
    asyncio.run(ask(2))
    before = scripts_run(redis_server)
    assert all(turn.wait_seconds > 0 for turn in asyncio.run(ask(1_000)))
    assert scripts_run(redis_server) == before


def test_requests_at_once_share_a_script(redis_server):
    async def ask():
        return await asyncio.gather(*(turnstiles.pass_through("k", grant) for _ in range(100)))

    turnstiles, grant = Turnstiles(), KeyGrant(rate=1, burst=60)
    before = scripts_run(redis_server)
    turns = asyncio.run(ask())
    assert sum(turn.wait_seconds is None for turn in turns) == 60
    assert scripts_run(redis_server) - before <= 4


def test_the_turns_end_with_their_rate(redis_server):
    _take("k", _Pace.of(KeyGrant(rate=10, burst=2)), 2)
    with redis_server.client() as client:
        assert 0 < client.pttl("dspy:v1:key-turns:k") <= 2_000
