"""Runtimes: a value is made once for each, and none crosses a fork or a block that it does not belong to."""

import asyncio
import contextvars
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspyq.core.runtime import DEFAULT, Runtime, after_fork, bound, current, in_all_runtimes, per_runtime

closed = []
renewed = []


@per_runtime
def token():
    return object()


@per_runtime(is_kept=True)
def facts():
    return object()


@per_runtime(renew=renewed.append)
def renewable():
    return [token()]


@per_runtime(close=closed.append)
def inner():
    return "inner"


@per_runtime(close=closed.append)
def outer():
    return f"outer of {inner()}"


@per_runtime(close=closed.append)
def nothing():
    return None


@pytest.fixture(autouse=True)
def fresh():
    with DEFAULT.emptied():
        closed.clear()
        renewed.clear()
        yield


def test_a_value_is_made_once_for_each_runtime():
    other = Runtime()
    mine = token()
    with other.active():
        theirs = token()
        assert token() is theirs
    assert theirs is not mine
    assert token() is mine


def test_concurrent_threads_get_one_value():
    made = []

    @per_runtime
    def slow():
        made.append(1)
        time.sleep(0.05)
        return object()

    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: slow(), range(8)))
    assert len(made) == len(set(values)) == 1


def test_a_function_that_raises_is_asked_again():
    tries = []

    @per_runtime
    def flaky():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")
        return "there"

    with pytest.raises(ValueError, match="not yet"):
        flaky()
    assert flaky() == "there"


def test_none_is_a_value():
    made = []

    @per_runtime
    def absent():
        made.append(1)

    absent()
    absent()
    assert made == [1]


def test_tasks_of_an_event_loop_keep_apart_what_they_activate():
    runtimes = [Runtime() for _ in range(3)]

    async def use(runtime):
        with runtime.active():
            seen = [token()]
            await asyncio.sleep(0)
            assert current() is runtime
            seen.append(await asyncio.to_thread(token))
            return seen

    async def use_all():
        return await asyncio.gather(*map(use, [*runtimes, *runtimes]))

    seen = asyncio.run(use_all())
    assert all(len(set(each)) == 1 for each in seen)
    assert len({each[0] for each in seen}) == 3


def test_a_coroutine_that_is_abandoned_ends_without_a_remark(recwarn):
    async def use():
        with Runtime().active():
            await asyncio.sleep(0)

    coroutine = use()
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert current() is DEFAULT
    assert not recwarn.list


def test_a_block_that_ends_in_another_context_fails():
    block = Runtime().active()
    contextvars.copy_context().run(block.__enter__)
    with pytest.raises(ValueError, match="different Context"):  # it had no effect on what stands between
        block.__exit__(None, None, None)


def test_a_thread_uses_the_default_unless_its_call_is_bound():
    other = Runtime()
    seen = {}
    with other.active():
        threads = [
            threading.Thread(target=lambda: seen.update(plain=current())),
            threading.Thread(target=bound(lambda: seen.update(bound=current()))),
        ]
    for each in threads:
        each.start()
        each.join()
    assert seen == {"plain": DEFAULT, "bound": other}


def test_a_block_without_values_leaves_those_from_before_in_all_threads():
    before = token()
    with DEFAULT.emptied(), ThreadPoolExecutor(1) as pool:
        within = pool.submit(token).result()
        assert within is token()
        assert within is not before
    assert token() is before


def test_closing_ends_the_last_made_first_and_keeps_plain_data():
    other = Runtime()
    with other.active():
        kept = facts()
        outer()
        nothing()
    other.close()
    assert closed == ["outer of inner", "inner"]
    with other.active():
        assert facts() is kept
        assert outer() == "outer of inner"


def test_every_closer_runs_although_one_fails():
    other = Runtime()

    @per_runtime(close=lambda _: 1 / 0)
    def faulty():
        return inner()

    with other.active():
        faulty()
    with pytest.raises(ZeroDivisionError):
        other.close()
    assert closed == ["inner"]


def test_a_value_can_be_seen_in_all_runtimes():
    other = Runtime()
    mine = token()
    with other.active():
        theirs = token()
    assert {mine, theirs} <= set(in_all_runtimes(token))


def in_child(check):
    """Run a check in a forked child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_forked_child_drops_values_of_every_runtime_but_those_that_may_cross():
    other = Runtime()
    before = {}
    for runtime in (DEFAULT, other):
        with runtime.active():
            before[runtime] = token(), facts(), renewable()

    def is_fresh(runtime):
        with runtime.active():
            old_token, old_facts, old_renewable = before[runtime]
            return token() is not old_token and facts() is old_facts and renewable() is old_renewable

    assert in_child(lambda: is_fresh(DEFAULT) and is_fresh(other) and len(renewed) == 2)
    assert not renewed


def test_a_forked_child_drops_what_a_block_has_set_aside():
    before = token()

    def is_fresh():
        inside.__exit__(None, None, None)
        return token() is not before

    inside = DEFAULT.emptied()
    inside.__enter__()
    assert in_child(is_fresh)
    inside.__exit__(None, None, None)
    assert token() is before


def test_a_child_that_is_forked_while_a_value_is_made_can_make_its_own():
    begun, may_end = threading.Event(), threading.Event()

    @per_runtime
    def slow():
        begun.set()
        may_end.wait(60)
        return os.getpid()

    parent = threading.Thread(target=slow)
    parent.start()
    begun.wait(60)

    def is_own():
        may_end.set()
        return slow() == os.getpid()

    assert in_child(is_own)
    may_end.set()
    parent.join()
    assert slow() == os.getpid()


def test_a_process_begins_anew_in_a_forked_child_what_it_has_once():
    calls = []
    after_fork(lambda: calls.append(os.getpid()))
    assert in_child(lambda: calls == [os.getpid()])
    assert not calls
