"""The circuit breaker, for the whole fleet: two breakers here stand for two workers, or real processes do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from pybreaker import CircuitBreakerError, CircuitBreakerListener

from dspyq.config.settings import load_settings
from dspyq.errors import BreakerOpen
from dspyq.guards.breaker import Breaker
from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.interruptions import Refusal
from tests.support.configuration import default_document, merged, write_settings
from tests.support.processes import wait_until

POLICY = BreakerPolicy(
    failure_threshold=3,
    success_threshold=1,
    reset_timeout_seconds=0.3,
    max_reset_timeout_seconds=1.0,
    probe_lease_seconds=30,
)
#: An opening that no test outlasts.
LONG = replace(POLICY, reset_timeout_seconds=100, max_reset_timeout_seconds=1000)


class ProviderError(Exception):
    pass


@pytest.fixture
def worker_breaker(redis_server) -> Callable[..., Breaker]:
    """A breaker as one more worker has it."""
    return lambda policy=POLICY: Breaker(redis_server.client(decode_responses=False), "m", policy)


@pytest.fixture
def operator(redis_server) -> FleetBreaker:
    return FleetBreaker(redis_server.client(decode_responses=False), "m", POLICY)


def read(breaker):
    breaker.seconds_until_callable()
    return breaker.state


def succeed(breaker):
    read(breaker)
    with breaker.calling():
        pass


def fail(breaker, times=1):
    for _ in range(times):
        read(breaker)
        with suppress(ProviderError), breaker.calling():
            raise ProviderError


def say_nothing(breaker):
    read(breaker)
    with suppress(ProviderError), breaker.calling() as call:
        call.ignore()
        raise ProviderError


def open_for(policy, breaker):
    fail(breaker, policy.failure_threshold)
    assert breaker.state.name == "open"


def wait_for_probe(breaker):
    wait_until(lambda: breaker.seconds_until_callable() == 0, 60, "the opening to end")


def test_a_call_costs_no_round_trip_while_closed(worker_breaker, redis_server):
    breaker = worker_breaker()
    succeed(breaker)
    with redis_server.counted() as usage:
        for _ in range(100):
            breaker.check()
            with breaker.calling():
                pass
    assert not usage.commands


def test_two_hundred_threads_make_two_hundred_calls_at_once(worker_breaker):
    breaker = worker_breaker()
    everyone = threading.Barrier(200, timeout=30)

    def call(_):
        with breaker.calling():
            everyone.wait()

    with ThreadPoolExecutor(200) as pool:
        assert len(list(pool.map(call, range(200)))) == 200


def test_failures_in_a_row_over_the_fleet_open_it_for_everyone(worker_breaker):
    one, other = worker_breaker(LONG), worker_breaker(LONG)
    fail(one, 2)
    assert read(other).name == "closed"
    fail(other)
    read(one)
    with pytest.raises(Refusal) as refused:
        one.check()
    assert isinstance(refused.value.error, BreakerOpen)
    assert refused.value.pauses_queue
    assert 90 < refused.value.wait_seconds <= 100
    assert refused.value.error.retry_after_seconds == refused.value.wait_seconds
    assert "[breaker]" in str(refused.value.error)
    assert one.rejections == 1


def test_an_open_breaker_refuses_the_call_itself_with_pybreakers_error_as_the_cause(worker_breaker, redis_server):
    breaker = worker_breaker(LONG)
    open_for(LONG, breaker)
    with redis_server.counted() as usage, pytest.raises(Refusal) as refused, breaker.calling():
        pytest.fail("called")
    assert isinstance(refused.value.__cause__, CircuitBreakerError)
    assert not usage.commands


def test_a_success_between_failures_resets_the_count(worker_breaker, redis_server):
    one, other = worker_breaker(), worker_breaker()
    fail(one, 2)
    read(other)
    with redis_server.counted() as usage, other.calling():
        pass
    assert usage.commands["evalsha"] == 1
    assert read(one).failures == 0
    fail(one, 2)
    assert one.state.name == "closed"


def test_the_provider_s_error_reaches_the_caller_unchanged_also_when_it_opens_the_breaker(worker_breaker):
    breaker = worker_breaker(replace(LONG, failure_threshold=1))
    with pytest.raises(ProviderError, match="mine"), breaker.calling():
        raise ProviderError("mine")
    assert breaker.state.name == "open"


def test_a_neutral_outcome_counts_for_neither_side(worker_breaker):
    breaker = worker_breaker()
    fail(breaker, 2)
    say_nothing(breaker)
    with suppress(KeyboardInterrupt), breaker.calling():
        raise KeyboardInterrupt
    assert (read(breaker).name, breaker.state.failures) == ("closed", 2)


def test_calls_begun_before_a_transition_are_not_counted_after_it(worker_breaker):
    """Fifty calls in flight fail together: one opening. One that succeeds late does not close it."""
    breaker = worker_breaker()
    everyone, may_succeed = threading.Barrier(51, timeout=30), threading.Event()

    def call(number):
        with suppress(ProviderError), breaker.calling():
            everyone.wait()
            if number:
                raise ProviderError
            may_succeed.wait(30)

    with ThreadPoolExecutor(50) as pool:
        calls = [pool.submit(call, number) for number in range(50)]
        everyone.wait()
        for each in calls[1:]:
            each.result(30)
        state = read(breaker)
        assert (state.name, state.openings) == ("open", 1)
        assert state.open_seconds <= POLICY.reset_timeout_seconds
        wait_for_probe(breaker)
        with suppress(ProviderError), breaker.calling():  # half-open now
            may_succeed.set()
            calls[0].result(30)
            assert read(breaker).name == "half-open"
            raise ProviderError
    assert (read(breaker).name, breaker.state.openings) == ("open", 2)


def test_a_call_of_before_an_opening_that_fails_after_it_is_closed_again_is_not_counted(worker_breaker, operator):
    one, other = worker_breaker(), worker_breaker()
    with suppress(ProviderError), one.calling():
        open_for(POLICY, other)
        operator.command("close")
        raise ProviderError
    assert (read(other).name, other.state.failures) == ("closed", 0)
    with one.calling():
        operator.command("close")
        fail(other)
    assert read(other).failures == 1


def test_openings_double_up_to_the_longest_and_start_anew_after_a_success(worker_breaker):
    breaker = worker_breaker()
    open_for(POLICY, breaker)
    periods = [breaker.state.open_seconds]
    for _ in range(3):
        wait_for_probe(breaker)
        fail(breaker)
        periods.append(breaker.state.open_seconds)
    assert periods == pytest.approx([0.3, 0.6, 1.0, 1.0], abs=0.01)
    wait_for_probe(breaker)
    succeed(breaker)
    assert breaker.state.name == "closed"
    open_for(POLICY, breaker)
    assert breaker.state.open_seconds == pytest.approx(0.3, abs=0.01)
    assert breaker.state.openings == 5


def test_it_closes_after_as_many_probes_as_it_must(worker_breaker):
    breaker = worker_breaker(replace(POLICY, success_threshold=2))
    open_for(POLICY, breaker)
    wait_for_probe(breaker)
    succeed(breaker)
    assert breaker.state.name == "half-open"
    succeed(breaker)
    assert breaker.state.name == "closed"


def test_a_neutral_probe_makes_room_for_another(worker_breaker):
    one, other = worker_breaker(), worker_breaker()
    open_for(POLICY, one)
    wait_for_probe(one)
    say_nothing(one)
    assert read(one).name == "half-open"
    succeed(other)
    assert read(one).name == "closed"


def test_another_call_is_refused_without_a_round_trip_while_one_probes(worker_breaker, redis_server):
    one, other = worker_breaker(), worker_breaker()
    open_for(POLICY, one)
    wait_for_probe(one)
    with one.calling():
        read(other)
        with redis_server.counted() as usage, pytest.raises(Refusal) as refused:
            other.check()
        assert not usage.commands
        with pytest.raises(Refusal), other.calling():
            pytest.fail("called")
        assert 0 < refused.value.wait_seconds <= 1
        assert other.seconds_until_callable() == refused.value.wait_seconds
    read(other)
    other.check()


def probe_once(threads, fleet):
    """Try from many threads at once to make a call; the probe lasts until all others were refused."""
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import suppress

    from dspyq.guards.breaker import Breaker
    from dspyq.guards.breaker_state import BreakerPolicy
    from dspyq.guards.interruptions import Refusal
    from dspyq.store.clients import jobs_client
    from dspyq.store.scripts import run_together

    client = jobs_client()
    breaker = Breaker(client, "m", BreakerPolicy(3, 1, 0.3, 1.0, 30))
    run_together(client, [breaker.read()])
    client.incr("ready")
    while int(client.get("ready")) < fleet // threads or (
        breaker.seconds_until_callable() and breaker.state.name == "open"
    ):
        time.sleep(0.01)
    barrier = threading.Barrier(threads)

    def attempt(_):
        barrier.wait()
        try:
            with breaker.calling():
                client.incr("calls")
                end = time.monotonic() + 20
                while int(client.get("refused") or 0) < fleet - 1 and time.monotonic() < end:
                    time.sleep(0.01)
                int("no number")  # the provider fails
        except Refusal:
            client.incr("refused")

    with ThreadPoolExecutor(threads) as pool, suppress(ValueError):
        list(pool.map(attempt, range(threads)))


def test_half_open_admits_one_call_of_three_processes_of_thirty_threads(worker_breaker, start_producer, redis_server):
    breaker = worker_breaker()
    open_for(POLICY, breaker)
    processes = [start_producer(probe_once, threads=30, fleet=90) for _ in range(3)]
    for process in processes:
        process.result(30)
    client = redis_server.client()
    assert (client.get("calls"), client.get("refused")) == ("1", "89")
    assert read(breaker).openings == 2


def probe_and_hang():
    """Become the probe, and never end."""
    import time

    from dspyq.guards.breaker import Breaker
    from dspyq.guards.breaker_state import BreakerPolicy
    from dspyq.store.clients import jobs_client

    breaker = Breaker(jobs_client(), "m", BreakerPolicy(3, 1, 0.3, 1.0, 2.0))
    while breaker.seconds_until_callable():
        time.sleep(0.01)
    with breaker.calling():
        jobs_client().set("probing", 1)
        time.sleep(100)


def test_the_place_of_a_killed_probe_is_free_after_its_lease(worker_breaker, start_producer, redis_server):
    breaker = worker_breaker()
    open_for(POLICY, breaker)
    producer = start_producer(probe_and_hang)
    wait_until(lambda: redis_server.client().get("probing"), 20, "the probe")
    producer.process.kill()
    assert read(breaker).probe_seconds > 0
    with pytest.raises(Refusal), breaker.calling():
        pytest.fail("called")
    wait_for_probe(breaker)
    succeed(breaker)
    assert breaker.state.name == "closed"


def test_only_the_process_that_makes_a_transition_logs_it(worker_breaker, caplog):
    one, other = worker_breaker(), worker_breaker()
    with caplog.at_level(logging.WARNING, "dspyq.breaker"):
        open_for(POLICY, one)
        read(other)
        wait_for_probe(other)
        succeed(other)
        read(one)
    assert caplog.messages == [
        "breaker_opened model=m before=closed open_seconds=0.3",
        "breaker_half_open model=m before=open",
        "breaker_closed model=m before=half-open",
    ]


def test_pybreaker_s_listeners_get_each_state_including_those_of_other_processes(worker_breaker):
    heard = []

    class Listener(CircuitBreakerListener):
        def state_change(self, cb, old_state, new_state):
            heard.append((cb.name, old_state.name, new_state.name))

    one, other = worker_breaker(), worker_breaker()
    other.circuit.add_listener(Listener())
    open_for(POLICY, one)
    read(other)
    assert other.circuit.state.name == "open"
    wait_for_probe(other)
    succeed(other)
    assert heard == [("m", "closed", "open"), ("m", "open", "half-open"), ("m", "half-open", "closed")]


def test_a_call_that_only_begins_resets_no_failures_when_others_closed_the_breaker(worker_breaker, operator):
    one, other = worker_breaker(LONG), worker_breaker(LONG)
    open_for(LONG, one)
    read(other)
    with pytest.raises(Refusal), other.calling():
        pytest.fail("called")
    operator.command("close")
    fail(one, 2)
    read(other)
    with other.calling():
        assert read(one).failures == 2
    assert read(one).failures == 0


def test_an_operator_s_opening_lasts_until_it_is_closed(worker_breaker, operator):
    breaker = worker_breaker()
    operator.command("open")
    time.sleep(2 * POLICY.reset_timeout_seconds)
    assert breaker.seconds_until_callable() == POLICY.reset_timeout_seconds
    with pytest.raises(Refusal), breaker.calling():
        pytest.fail("called")
    operator.command("close")
    succeed(breaker)
    assert (read(breaker).name, breaker.state.openings) == ("closed", 1)


def test_an_operator_closes_an_opening_before_its_time_and_a_reset_forgets_how_many_there_were(
    worker_breaker, operator
):
    breaker = worker_breaker(LONG)
    open_for(LONG, breaker)
    operator.command("close")
    succeed(breaker)
    fail(breaker, 2)
    assert read(breaker).openings == 1
    operator.command("reset")
    assert (read(breaker).openings, breaker.state.failures) == (0, 0)
    fail(breaker, 2)
    assert breaker.state.name == "closed"


def test_an_event_reported_twice_counts_once_and_has_the_same_reply(operator, worker_breaker):
    breaker = worker_breaker()
    for call in ("a", "a", "b", "b"):
        operator.report("failed", call, 0)
    assert read(breaker).failures == 2
    first, again = operator.report("failed", "c", 0), operator.report("failed", "c", 0)
    assert first.is_transition
    assert again.is_transition
    assert again.state.openings == 1
    wait_for_probe(breaker)
    admitted = operator.report("admit", "d", 0)
    assert (admitted.is_admitted, operator.report("admit", "d", 0).is_admitted) == (True, True)
    assert not operator.report("admit", "e", 0).is_admitted


def test_data_that_redis_lost_does_not_keep_a_breaker_open(worker_breaker, redis_server):
    breaker = worker_breaker(LONG)
    open_for(LONG, breaker)
    redis_server.flush()
    succeed(breaker)
    assert breaker.state.name == "closed"
    open_for(LONG, breaker)


def test_what_another_call_has_just_read_is_not_read_again_until_a_moment_later(worker_breaker):
    breaker = worker_breaker(LONG)
    assert not breaker.is_fresh
    read(breaker)
    assert breaker.is_fresh
    time.sleep(0.03)
    assert not breaker.is_fresh
    open_for(LONG, breaker)
    assert not breaker.is_fresh


def test_a_reply_that_comes_late_does_not_undo_a_later_one(worker_breaker, redis_server):
    breaker = worker_breaker(LONG)
    read(breaker)
    step = breaker.read()
    late_reply = redis_server.client(decode_responses=False).execute_command(*step.command)
    open_for(LONG, breaker)
    step.read(late_reply)
    assert breaker.state.name == "open"


def test_a_full_redis_counts_failures_and_opens(fresh_redis_server):
    server = fresh_redis_server()
    breaker = Breaker(server.client(decode_responses=False), "m", LONG)
    server.fill()
    open_for(LONG, breaker)


def test_an_answer_is_not_lost_when_redis_misses_its_outcome(fresh_redis_server, caplog):
    server = fresh_redis_server()
    breaker = Breaker(server.client(decode_responses=False), "m", LONG)
    fail(breaker)
    with caplog.at_level(logging.WARNING, "dspyq.breaker"), breaker.calling():
        server.process.kill()
    assert breaker.unreported == 1
    assert "breaker_not_told" in caplog.text
    with pytest.raises(ProviderError), breaker.calling():
        raise ProviderError


def test_a_model_s_own_policy_goes_before_the_common_one(tmp_path):
    changes = {
        "breaker": {"failure_threshold": 7, "success_threshold": 2},
        "models": {"control": {"failure_threshold": 2, "max_reset_timeout_seconds": 20}},
    }
    document = merged(default_document("http://127.0.0.1:1"), changes)
    settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
    assert BreakerPolicy.of(settings, settings.models["control"]) == BreakerPolicy(2, 2, 10, 20, 15)
