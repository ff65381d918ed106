"""The rate limit, for the whole fleet: two limiters here stand for two workers, or real processes do."""

from __future__ import annotations

import bisect
import itertools
import math
import time
from dataclasses import replace

import pytest

from dspyq.config.settings import load_settings
from dspyq.guards.provider_gate import GatePolicy
from dspyq.guards.rate_limit import RateLimiter, RateLimitPolicy
from dspyq.store.scripts import run_together
from tests.support.configuration import default_document, merged, write_settings
from tests.support.rates import KEY, POLICY, about


def take_turns(rate, burst, threads, processes, turns):
    """Take turns in many threads; return when each is due by Redis's clock and whether its caller waits, by thread."""
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    from dspyq.guards.provider_gate import GatePolicy
    from dspyq.guards.rate_limit import RateLimiter, RateLimitPolicy
    from dspyq.store.clients import jobs_client
    from dspyq.store.scripts import run_together

    client = jobs_client()
    limiter = RateLimiter(client, "m", RateLimitPolicy(rate, burst, None, 60, GatePolicy(300, 60, 3600)))
    barrier = threading.Barrier(threads)

    def take_turn():
        step = limiter.reserve(0)
        ((reply, reservation),) = run_together(client, [step._replace(read=lambda reply: (reply, step.read(reply)))])
        time.sleep(reservation.wait_seconds)
        is_reserved, wait, _, _, now, _ = reply
        assert is_reserved == 1
        return now + wait, wait > 0

    def take(_):
        client.ping()
        if barrier.wait() == 0:
            client.incr("ready")
        while int(client.get("ready") or 0) < processes:
            time.sleep(0.01)
        return [take_turn() for _ in range(turns)]

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(take, range(threads)))


@pytest.mark.long
def test_two_hundred_threads_on_four_processes_keep_the_limit_use_it_and_all_get_their_turns(start_producer):
    rate, burst, turns = 100, 5, 2
    arguments = {"rate": rate, "burst": burst, "threads": 50, "processes": 4, "turns": turns}
    processes = [start_producer(take_turns, **arguments) for _ in range(4)]
    by_thread = [taken for process in processes for taken in process.result(200)]
    assert [len(taken) for taken in by_thread] == [turns] * 200
    taken = sorted(itertools.chain(*by_thread))
    due = [microseconds for microseconds, _ in taken]
    assert max(bisect.bisect_right(due, start + 1_000_000) - index for index, start in enumerate(due)) <= rate + burst
    gaps = [due[index] - due[index - 1] for index, (_, waits) in enumerate(taken) if waits]
    assert len(gaps) > 200
    assert max(gaps) <= 1_000_000 / rate / 0.97 + 2  # nothing is left unused while somebody waits


def test_a_burst_is_sent_at_once_and_the_rest_in_turn(limiter, reserve):
    slow = {"requests_per_second": 0.02, "burst_requests": 3, "longest_wait_seconds": 200}
    two = limiter(**slow), limiter(**slow)
    turns = [reserve(two[number % 2]) for number in range(5)]
    assert [turn.wait_seconds for turn in turns[:3]] == [0, 0, 0]
    assert [turn.wait_seconds for turn in turns[3:]] == [about(51.5), about(103)]
    assert turns[4].reason == "requests"
    assert all(turn.is_reserved for turn in turns)


def test_a_caller_with_too_long_a_wait_reserves_nothing_and_gets_the_time_to_return(limiter, reserve):
    one = limiter(requests_per_second=0.01)
    reserve(one)
    refused = [reserve(one) for _ in range(3)]
    assert not any(turn.is_reserved for turn in refused)
    assert [turn.wait_seconds for turn in refused] == [about(103)] * 3
    assert reserve(limiter(requests_per_second=0.01, longest_wait_seconds=200)).is_reserved


def test_a_caller_may_state_a_shorter_wait(limiter, reserve):
    one = limiter(requests_per_second=0.01, longest_wait_seconds=200)
    reserve(one)
    assert not reserve(one, longest_wait_seconds=0.1).is_reserved
    assert not reserve(one, longest_wait_seconds=-1).is_reserved
    assert reserve(one).is_reserved


def test_a_turn_that_has_passed_must_not_be_used(limiter, reserve):
    one = limiter(requests_per_second=10)
    reservation = reserve(one)
    time.sleep(one.late_seconds)
    assert one.is_late(reservation)


def test_a_slow_reply_makes_no_call_late_that_waits_for_its_turn(limiter, client):
    one = limiter(requests_per_second=0.01, longest_wait_seconds=200)
    run_together(client, [one.reserve(0)])
    began_at = time.monotonic()
    step = one.reserve(0)
    reply = client.execute_command(*step.command)
    time.sleep(0.5)
    read_after = time.monotonic()
    reservation = step.read(reply)
    assert reservation.wait_seconds == about(103 - 0.5, began_at + 0.5)
    assert read_after + reservation.wait_seconds <= reservation.send_by - one.late_seconds <= began_at + 103.1


@pytest.mark.parametrize("rate", [0.3, 1, 2.5, 10, 99.9, 100, 5000])
def test_lateness_carries_no_second_over_the_limit_by_arithmetic(limiter, rate):
    late_seconds = limiter(requests_per_second=rate).late_seconds
    assert late_seconds > 0.03
    assert math.floor((1 + late_seconds) * rate * 0.97) <= rate


def test_without_limits_nothing_is_stored_and_no_call_waits_or_is_late(limiter, reserve, redis_server):
    one = limiter()
    reservation = reserve(one, 1000)
    assert (reservation.is_reserved, reservation.wait_seconds, reservation.reason) == (True, 0, "")
    time.sleep(0.1)
    assert not one.is_late(reservation)
    assert one.correct(1000, 10) is None
    assert redis_server.keys() == []


def test_tokens_pass_at_their_pace(limiter, reserve):
    one = limiter(tokens_per_minute=6000)  # 100 a second
    assert reserve(one, 50).wait_seconds == 0
    second = reserve(one, 120)
    assert second.wait_seconds == about(0.5)
    assert second.reason == ("tokens" if second.wait_seconds else "")
    assert reserve(one, 1).wait_seconds == about(1.7)


def test_what_a_call_did_not_use_is_given_back_and_what_it_used_beyond_is_taken(limiter, reserve, correct):
    one = limiter(tokens_per_minute=6000, longest_wait_seconds=100)
    reserve(one, 1000)
    correct(one, 1000, 400)
    assert reserve(one, 0).wait_seconds == 0  # its tokens are reserved already
    assert reserve(one, 100).wait_seconds == about(4)
    correct(one, 100, 600)
    assert reserve(one, 100).wait_seconds == about(10)
    assert one.correct(100, 100) is None


def test_tokens_beyond_an_estimate_are_waited_for_also_when_the_pace_had_ended(limiter, reserve, correct):
    one = limiter(tokens_per_minute=6000)
    reserve(one, 1)
    time.sleep(0.1)
    corrected_at = time.monotonic()
    correct(one, 1, 101)
    assert reserve(one, 1).wait_seconds == about(1, corrected_at)


def test_a_correction_that_is_sent_twice_counts_once(limiter, reserve, client):
    one = limiter(tokens_per_minute=6000, longest_wait_seconds=100)
    reserve(one, 1000)
    step = one.correct(1000, 800)
    run_together(client, [step, step])
    assert reserve(one, 1).wait_seconds == about(8)
    (mark,) = client.scan_iter(f"{KEY}:corrected:*")
    assert 0 < client.pttl(mark) <= 60_000


def test_tokens_used_keep_their_pace_while_estimates_are_too_high(limiter, reserve, correct):
    one = limiter(tokens_per_minute=60_000, longest_wait_seconds=100)  # 1,000 a second
    began_at = time.monotonic()
    for _ in range(5):
        assert all(reserve(one, 800).is_reserved for _ in range(16))
        for _ in range(16):
            correct(one, 800, 200)
    assert reserve(one, 1).wait_seconds == about(16, began_at)


def test_a_full_redis_limits_all_the_same(fresh_redis_server):
    server = fresh_redis_server()
    client = server.client(decode_responses=False)
    one = RateLimiter(client, "m", replace(POLICY, requests_per_second=0.01, tokens_per_minute=6000))
    server.fill()
    assert run_together(client, [one.reserve(10)])[0].is_reserved
    assert run_together(client, [one.reserve(10)])[0].wait_seconds > 0
    run_together(client, [one.correct(10, 1)])
    assert one.gate.close("account").seconds > 0
    run_together(client, [one.gate.read_seconds(), one.gate.succeeded()])
    assert one.gate.reset()


def test_the_policy_is_of_the_model_s_table_and_the_common_one(tmp_path):
    changes = {
        "rate_limit": {"longest_wait_seconds": 0.5},
        "models": {"control": {"requests_per_second": 2.5, "burst_requests": 4, "tokens_per_minute": 1000}},
    }
    document = merged(default_document("http://127.0.0.1:1"), changes)
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    policy = RateLimitPolicy(2.5, 4, 1000, 0.5, GatePolicy(300, 60, 3600))
    assert RateLimitPolicy.of(settings, settings.models["control"]) == policy
