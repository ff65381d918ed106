"""L1 is bounded, private to its process, and coherent within a second."""

# ruff: noqa: SLF001 - its threads and tables are what is tested

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspyq.cache.memory import FreshAnswer, MemoryCache
from dspyq.config.sections import CacheSection


def memory(**settings):
    return MemoryCache(CacheSection(**settings))


def put(cache, key, payload=b"x", seconds_left=100.0, read_at=None):
    cache.put(key, FreshAnswer(f"task of {key}", payload, seconds_left, read_at or time.monotonic()))


def has(cache, key):
    return cache.get(key, "qa.control") is not None


def test_it_holds_no_more_entries_than_it_may_and_drops_the_least_recently_used():
    cache = memory(memory_entries=3)
    for key in "abc":
        put(cache, key)
    assert has(cache, "a")
    put(cache, "d")
    assert [has(cache, key) for key in "abcd"] == [True, False, True, True]
    assert cache.take_counts().evictions == 1


def test_it_holds_no_more_bytes_than_it_may():
    cache = memory(memory_bytes=100)
    for key in "abc":
        put(cache, key, b"x" * 40)
    assert [has(cache, key) for key in "abc"] == [False, True, True]
    assert cache.size_bytes == 80
    put(cache, "huge", b"x" * 101)
    assert not has(cache, "huge")
    assert len(cache) == 2


def test_an_entry_lives_no_longer_than_redis_serves_it_or_the_setting_allows():
    cache = memory(memory_ttl_seconds=0.1)
    put(cache, "setting")
    long = memory()
    put(long, "redis", seconds_left=0.1)
    put(long, "gone", seconds_left=0)
    assert has(cache, "setting")
    assert has(long, "redis")
    assert not has(long, "gone")
    time.sleep(0.15)
    assert not has(cache, "setting")
    assert not has(long, "redis")


def test_a_value_read_before_an_invalidation_is_refused():
    cache = memory()
    read_at = time.monotonic()
    cache.invalidate("a")
    put(cache, "a", read_at=read_at)
    assert not has(cache, "a")
    put(cache, "a")
    assert has(cache, "a")
    cache.clear()
    put(cache, "a", read_at=read_at)
    assert not has(cache, "a")


def test_hits_are_counted_and_given_back_if_they_could_not_be_stored():
    cache = memory()
    put(cache, "a")
    has(cache, "a")
    cache.give_back_counts(cache.take_counts())
    has(cache, "a")
    assert cache.take_counts().hits == {"qa.control": 2}


SERVE = """
import threading, time
from dspyq.store.clients import jobs_client
from dspyq import predict
from dspyq.cache.memory import process_cache
cache, redis = process_cache(), jobs_client()
end = time.monotonic() + 20
while not cache.is_trusted and time.monotonic() < end:
    time.sleep(0.01)
predict.delay(question="q").get(timeout=20)
predict.delay(question="q").get(timeout=20)
redis.incr("serving")
while not redis.get("invalidated") and time.monotonic() < end:
    predict.delay(question="q")
time.sleep(1.0)
return predict.delay(question="q").cache_level
"""


@pytest.mark.parametrize("how", ["invalidate", "clear", "clear_variant", "forget"])
def test_no_process_serves_an_invalidated_answer_a_second_later(
    how, shared_worker, start_producer, redis_server, endpoint, configured
):
    del shared_worker, configured
    producers = [start_producer(SERVE) for _ in range(3)]
    client = redis_server.client()
    wait_for(lambda: client.get("serving") == "3")
    endpoint.hold()
    from dspyq import predict
    from dspyq.cache.admin import clear, invalidate

    if how == "invalidate":
        assert invalidate({"question": "q"}) == 1
    elif how == "clear":
        assert clear() == 1
    elif how == "clear_variant":
        assert clear(program="qa", variant="control") == 1
    else:
        predict.AsyncResult(predict.delay(question="q").id).forget()
    client.set("invalidated", 1)
    levels = {producer.result() for producer in producers}
    endpoint.release()
    assert levels <= {None, "joined"}  # the new answer is held back, so any hit would be the old one


def test_clearing_one_program_leaves_the_others(settings_file, worker, run_producer, configured):
    del configured
    other = {"signature": "question -> answer", "variants": {"control": {"model": "control"}}}
    path = settings_file({"programs": {"other": other}})
    worker(path)

    def ask():
        from dspyq import predict
        from dspyq.cache.admin import cache_statistics, clear

        for program in ("qa", "other"):
            predict.apply_async(kwargs={"question": "q"}, program=program).get(timeout=20)
        before, cleared = cache_statistics(), clear(program="other")
        after = cache_statistics()
        assert before.size_bytes > after.size_bytes > 0
        return [before.entries, cleared, after.entries]

    assert run_producer(ask, path) == [2, 1, 1]


def wait_for(condition, timeout_seconds=20.0):
    end = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)


def test_a_process_without_invalidations_bypasses_its_memory(fresh_redis_server, settings_file, run_producer):
    server = fresh_redis_server()

    def ask(pid):
        import os
        import signal
        import time

        from dspyq.cache.memory import CoherentCache, FreshAnswer
        from dspyq.config.settings import get_settings

        settings = get_settings()
        cache = CoherentCache(settings.jobs_url, settings.cache)
        while not cache.is_trusted:
            time.sleep(0.01)
        cache.put("key", FreshAnswer("task", b'"input_hash":"key"', 100, time.monotonic()))
        served = cache.get("key", "qa.control") is not None
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.9)
        deaf = cache.get("key", "qa.control")
        os.kill(pid, signal.SIGCONT)
        return [served, deaf]

    assert run_producer(ask, settings_file(), redis_url=server.url, pid=server.process.pid) == [True, None]


def test_memory_is_emptied_when_the_channel_was_lost_and_is_back(fresh_redis_server, settings_file, start_producer):
    server = fresh_redis_server()

    def ask():
        import time

        from dspyq.cache.memory import CoherentCache, FreshAnswer
        from dspyq.config.settings import get_settings
        from dspyq.store.clients import jobs_client

        settings = get_settings()
        cache = CoherentCache(settings.jobs_url, settings.cache)
        while not cache.is_trusted:
            time.sleep(0.01)
        cache.put("key", FreshAnswer("task", b'"input_hash":"key"', 100, time.monotonic()))
        jobs_client().set("ready", 1)
        end = time.monotonic() + 20
        while cache.is_trusted and len(cache.memory) and time.monotonic() < end:
            time.sleep(0.01)
        while not cache.is_trusted and time.monotonic() < end:
            time.sleep(0.01)
        return [cache.is_trusted, cache.get("key", "qa.control")]

    producer = start_producer(ask, settings_file(), redis_url=server.url)
    wait_for(lambda: server.client().get("ready"))
    server.cut_connections()
    assert producer.result() == [True, None]


def test_a_forked_child_starts_with_an_empty_memory_of_its_own(shared_worker, run_producer):
    del shared_worker

    def fork():
        import os
        import time

        from dspyq import predict
        from dspyq.cache.memory import process_cache

        while not process_cache().is_trusted:
            time.sleep(0.01)
        predict.delay(question="q").get(timeout=20)
        assert predict.delay(question="q").cache_level == "memory"
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            first = predict.delay(question="q").cache_level
            while not process_cache().is_trusted:
                time.sleep(0.01)
            predict.delay(question="q").get(timeout=20)
            os.write(writer, f"{first} {predict.delay(question='q').cache_level}".encode())
            os._exit(0)
        os.waitpid(child, 0)
        return [os.read(reader, 100).decode(), predict.delay(question="q").cache_level]

    assert run_producer(fork) == ["redis memory", "memory"]


def test_memory_can_be_turned_off(shared_worker, run_producer):
    del shared_worker

    def ask():
        from dspyq import predict

        return [predict.delay(question="q").get(timeout=20).metadata.cache_level for _ in range(3)]

    assert run_producer(ask, env={"DSPYQ_CACHE__MEMORY_ENTRIES": "0"})[1:] == ["redis", "redis"]


def test_statistics_show_hits_of_every_level_over_all_processes(shared_worker, run_producer, configured):
    del shared_worker, configured

    def ask():
        import time

        from dspyq import predict
        from dspyq.cache.memory import process_cache

        while not process_cache().is_trusted:
            time.sleep(0.01)
        for _ in range(4):
            predict.delay(question="q").get(timeout=20)

    run_producer(ask)
    run_producer(ask)
    from dspyq.cache.admin import cache_statistics
    from dspyq.cache.statistics import variant_statistics

    statistics = cache_statistics()
    assert (statistics.entries, statistics.misses) == (1, 1)
    assert (statistics.hits_memory, statistics.hits_redis) == (6, 1)
    assert statistics.size_bytes > 100
    (row,) = variant_statistics()
    assert (row.calls, row.successes, row.hit_rate) == (8, 8, 7 / 8)


def test_the_memory_of_invalidations_is_bounded_and_what_it_forgot_is_refused_outright():
    from dspyq.cache import memory as module

    cache = memory()
    put(cache, "a", read_at=(read_before := time.monotonic()))
    for number in range(module._MOST_REMEMBERED + 2):
        cache.invalidate(f"h{number}")
    assert len(cache._invalidated_at) == module._MOST_REMEMBERED
    assert has(cache, "a")  # nobody invalidated it
    put(cache, "h0", read_at=read_before)
    assert not has(cache, "h0")
    put(cache, "h0")
    assert has(cache, "h0")


def test_an_invalidation_again_is_not_the_first_to_be_forgotten(monkeypatch):
    monkeypatch.setattr("dspyq.cache.memory._MOST_REMEMBERED", 2)
    cache = memory()
    for key in "abac":
        cache.invalidate(key)
    assert set(cache._invalidated_at) == {"a", "c"}


@pytest.mark.usefixtures("configured")
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200))
def test_after_an_invalidation_of_any_bytes_the_next_one_is_received(noise):
    from dspyq.cache.memory import process_cache
    from dspyq.store.clients import jobs_client
    from dspyq.store.keys import EVERYTHING, invalidations_channel

    cache = process_cache()
    thread = cache._thread
    put(cache.memory, "a0")
    jobs_client().publish(invalidations_channel(), noise)
    jobs_client().publish(invalidations_channel(), "a0")
    wait_for(lambda: not has(cache.memory, "a0"))
    put(cache.memory, "a1")
    jobs_client().publish(invalidations_channel(), EVERYTHING)
    wait_for(lambda: not has(cache.memory, "a1"))
    assert cache._thread is thread
    assert thread.is_alive()
    assert cache.is_trusted


@pytest.mark.usefixtures("configured")
def test_hits_are_counted_beside_a_field_that_holds_no_number(redis_server):
    from dspyq.cache.memory import process_cache
    from dspyq.core.tolerated import tolerated

    client, cache, before = redis_server.client(), process_cache(), tolerated("snapshot")
    client.hset("dspy:v1:statistics:qa.control", "hits_memory", "rubbish")
    client.set("dspy:v1:cache-statistics", "rubbish")
    put(cache.memory, "a")
    cache.memory.get("a", "qa.control")
    cache.memory.get("a", "qa.challenger")
    wait_for(lambda: client.hget("dspy:v1:statistics:qa.challenger", "hits_memory") == "1")
    assert tolerated("snapshot") > before
    assert cache.is_trusted
