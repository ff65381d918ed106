"""Two configurations in one process: each call, result, cache and connection belongs to one of them."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from celery import group

import dspyq
from dspyq import predict
from dspyq.cache.claim import Run, Stored
from dspyq.cache.claims import process_claims
from dspyq.cache.memory import process_cache
from dspyq.config.settings import get_settings
from dspyq.core.runtime import current
from dspyq.errors import ConfigurationError, InvalidInputs
from dspyq.prediction.prediction import Metadata, to_json
from dspyq.store.clients import jobs_client
from dspyq.testing import answers
from tests.support.configuration import API_KEY, API_KEY_VARIABLE, default_document, merged, write_settings
from tests.support.processes import wait_until

QUESTIONS = [f"q{number}" for number in range(12)]


@pytest.fixture(scope="module")
def document(session_endpoint):
    return default_document(session_endpoint.url)


@pytest.fixture(autouse=True)
def a_key(monkeypatch):
    monkeypatch.setenv(API_KEY_VARIABLE, API_KEY)


@pytest.fixture
def servers(fresh_redis_server):
    """The Redis of each region."""
    return fresh_redis_server(), fresh_redis_server()


@pytest.fixture
def documents(document):
    """The tables of each region: a program of the same name on two models, and one that the other lacks."""
    judge = {"judge": {"signature": "claim -> verdict", "variants": {"only": {"model": "control"}}}}
    return document, merged(document, {"programs": judge, "models": {"control": {"model": "openai/us"}}})


@pytest.fixture
def regions(servers, documents):
    """Two configurations of this process."""
    pair = [dspyq.configured(tables, redis_url=server.url) for tables, server in zip(documents, servers, strict=True)]
    yield pair
    for each in pair:
        each.close()


@pytest.fixture
def workers(worker, servers, documents, tmp_path):
    """A worker for each region."""
    for name, tables, server in zip(("eu", "us"), documents, servers, strict=True):
        worker(write_settings(tmp_path / f"{name}.toml", tables), redis_url=server.url, waits=False)


def stored(server):
    return {key.removeprefix("celery-task-meta-") for key in server.client().scan_iter("celery-task-meta-*")}


@pytest.mark.usefixtures("workers")
def test_threads_and_tasks_get_answers_from_their_own_configuration(regions, servers):
    eu, us = regions

    def ask(question):
        handles = [eu.predict.delay(question=question)]
        with us.active():
            handles += [predict.apply_async(kwargs={"question": question}, program="qa")]
        handles += [us.predict.apply_async(kwargs={"claim": question}, program="judge")]
        return handles

    with ThreadPoolExecutor(8) as pool:  # whose threads are in no block
        asked = [handle for handles in pool.map(ask, QUESTIONS) for handle in handles]
        found = list(pool.map(lambda handle: handle.get(timeout=60), asked))
    assert [each.metadata.model for each in found] == ["openai/control", "openai/us", "openai/us"] * len(QUESTIONS)
    assert {each.outputs.keys() == {"verdict"} for each in found[2::3]} == {True}

    async def ask_soon(region, number):
        with region.active():
            first = predict.ask({"question": f"a{number}"}, program="qa")
            return [await first, await region.predict.ask({"question": f"b{number}"}, program="qa")]

    async def ask_all():
        return await asyncio.gather(*(ask_soon(region, number) for number in range(6) for region in regions))

    models = [[each.metadata.model for each in pair] for pair in asyncio.run(ask_all())]
    assert models == [["openai/control"] * 2, ["openai/us"] * 2] * 6

    ours, theirs = map(stored, servers)
    assert {handle.id for handle in asked[::3]} <= ours
    assert not ours & theirs
    assert len(ours) == len(QUESTIONS) + 12
    assert len(theirs) == 2 * len(QUESTIONS) + 12


@pytest.mark.usefixtures("workers")
def test_every_way_to_read_a_result_leads_to_its_own_redis(regions):
    eu, us = regions
    with us.active():
        waited = predict.apply_async(kwargs={"question": "get"}, program="qa")
        awaited = predict.apply_async(kwargs={"question": "await"}, program="qa")
        called_back = predict.apply_async(kwargs={"question": "then"}, program="qa")
        polled = predict.apply_async(kwargs={"question": "poll"}, program="qa")
        grouped = group(predict.s(question=f"group{number}").set(program="qa") for number in range(3)).apply_async()
        awaited_group = group(predict.s(question=f"group{number}").set(program="qa") for number in range(3))()
    mixed = [eu.predict.delay(question="mixed"), us.predict.apply_async(kwargs={"claim": "mixed"}, program="judge")]
    arrived = threading.Event()
    seen = []

    def receive(result):
        seen.extend([result.get().answer, current() is result.runtime])
        arrived.set()

    called_back.then(receive)

    async def wait():
        return (await awaited).answer, [each.answer for each in await awaited_group]

    assert waited.get(timeout=60).answer == "echo:get"
    assert asyncio.run(wait()) == ("echo:await", ["echo:group0", "echo:group1", "echo:group2"])
    assert arrived.wait(60)
    assert seen == ["echo:then", True]
    wait_until(polled.ready, 60, "the answer")
    assert polled.successful()
    assert polled.result.metadata.model == "openai/us"
    assert [each.answer for each in grouped.get(timeout=60)] == ["echo:group0", "echo:group1", "echo:group2"]
    assert [handle.get(timeout=60).metadata.model for handle in mixed] == ["openai/control", "openai/us"]
    again = us.predict.AsyncResult(waited.id)
    assert again.get(timeout=60).answer == "echo:get"
    waited.forget()
    assert us.predict.AsyncResult(waited.id).state == "PENDING"


def test_cancelling_withdraws_from_its_own_redis(regions, servers):
    eu, us = regions
    handles = [eu.predict.delay(question="a"), us.predict.apply_async(kwargs={"question": "a"}, program="qa")]
    assert handles[1].cancel()
    assert [len(list(server.client().scan_iter("dspy:v1:job:*"))) for server in servers] == [1, 0]
    assert [handle.state for handle in handles] == ["PENDING", "REVOKED"]


@pytest.mark.usefixtures("workers")
def test_the_memory_of_one_answers_nothing_of_another(documents, servers, regions):
    eu, _ = regions
    twin = dspyq.configured(documents[0], redis_url=servers[1].url)  # whose questions have the same hashes
    try:
        with eu.active():
            wait_until(lambda: process_cache().is_trusted, 60, "the memory cache to hear of invalidations")
        first = eu.predict.delay(question="same")
        first.get(timeout=60)
        assert eu.predict.delay(question="same").cache_level == "memory"
        second = twin.predict.delay(question="same")
        assert second.request.input_hash == first.request.input_hash
        assert second.cache_level is None
        assert second.id != first.id
    finally:
        twin.close()


def test_inputs_are_checked_and_variants_chosen_by_the_programs_of_a_configuration(regions):
    eu, us = regions
    with pytest.raises(InvalidInputs, match="claim is unknown"):
        eu.predict.delay(claim="x")
    assert us.predict.apply_async(kwargs={"claim": "x"}, program="judge").request.queue == "judge.only"


def test_the_environment_is_that_of_the_processs_own_configuration(document, monkeypatch):
    monkeypatch.setenv("DSPYQ_REDIS_URL", "redis://elsewhere:1/0")
    monkeypatch.setenv("DSPYQ_KEY_PREFIX", "elsewhere.")
    settings = dspyq.configured(document, redis_url="redis://here:1/0").settings
    assert (settings.redis_url, settings.key_prefix) == ("redis://here:1/0", "")


def test_a_fault_of_a_configuration_is_stated_when_it_is_made(document, tmp_path):
    with pytest.raises(ConfigurationError, match=r"redis_ulr: unknown key \(did you mean redis_url\?\)"):
        dspyq.configured(document, redis_ulr="redis://here:1/0")
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.toml: No such file or directory$"):
        dspyq.configured(tmp_path / "nowhere.toml")
    assert set(document) == {"models", "programs", "delivery", "workers"}  # what was given is not changed


def test_closing_ends_the_connections_and_threads_of_a_configuration_alone(regions, servers):
    def connections(server):
        return sum(client["name"] == "" and client["cmd"] != "client|list" for client in server.client().client_list())

    eu, us = regions
    handles = [eu.predict.delay(question="a"), us.predict.apply_async(kwargs={"claim": "a"}, program="judge")]
    for handle in handles:
        handle.then(print)
    wait_until(lambda: all(connections(server) > 2 for server in servers), 60, "connections")
    before = threading.active_count()
    eu.close()
    wait_until(lambda: not connections(servers[0]), 60, "the connections to close")
    assert connections(servers[1]) > 2
    assert threading.active_count() < before
    assert eu.predict.delay(question="b").state == "PENDING"  # it opens again


def test_two_configurations_of_one_redis_share_no_pool_and_no_limit(documents, servers):
    pair = [dspyq.configured(documents[0], redis_url=servers[0].url) for _ in range(2)]  # as with two users of Redis
    narrow = dspyq.configured(documents[0], redis_url=servers[0].url, workers={"concurrency": 1})
    try:
        with pair[0].predict.app.pool.acquire():  # a pool in use cannot be made smaller
            pools = [each.predict.app.pool for each in (*pair, narrow)]
        assert len({id(pool) for pool in pools}) == 3
    finally:
        for each in (*pair, narrow):
            each.close()


def test_the_memory_of_a_configuration_forgets_what_is_invalidated_in_its_redis(document, servers):
    asking, other = (dspyq.configured(document, redis_url=servers[0].url, key_prefix="own.") for _ in range(2))
    handle = asking.predict.delay(question="q")
    metadata = Metadata("qa", "control", "m", handle.request.input_hash, "r", time.time())
    meta = {"status": "SUCCESS", "result": to_json({"answer": "a"}, metadata), "traceback": None, "children": []}
    try:
        with asking.active():
            process_claims().answer(handle.request, Run(handle.id), Stored(orjson.dumps(meta), 60, 60, {}))
            wait_until(lambda: process_cache().is_trusted, 60, "the memory cache to hear of invalidations")
        assert asking.predict.delay(question="q").get().answer == "a"
        assert asking.predict.delay(question="q").cache_level == "memory"
        with other.active():
            process_claims().invalidate([handle.request.input_hash])
        wait_until(lambda: asking.predict.delay(question="q").cache_level != "memory", 60, "the memory to forget")
    finally:
        asking.close()
        other.close()


def test_a_forked_child_has_connections_of_its_own_to_each(regions):
    def connection_ids():
        ids = []
        for region in regions:
            with region.active():
                ids.append(jobs_client().client_id())
        return ids

    eu, us = regions
    first = eu.predict.delay(question="parent")
    before = connection_ids()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            asked = [
                eu.predict.delay(question="parent").id == first.id,
                us.predict.apply_async((), {"claim": "child"}, program="judge").state == "PENDING",
                not set(before) & set(connection_ids()),
            ]
            os.write(writing, repr(asked).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as result:
        assert result.read() == "[True, True, True]"
    assert connection_ids() == before


def test_answers_of_a_test_are_those_of_every_configuration(documents):
    region = dspyq.configured(documents[1], redis_url="redis://127.0.0.1:1/0")
    with answers(programs={"judge": {"verdict": "true"}}) as asked:
        assert region.predict.apply_async(kwargs={"claim": "x"}, program="judge").get().verdict == "true"
    assert [each.inputs for each in asked] == [{"claim": "x"}]


def test_the_processs_own_configuration_stays_what_it_is(configured, regions):
    with regions[1].active():
        assert get_settings() is regions[1].settings
        assert predict.app is regions[1].predict.app
    assert get_settings() is configured
    assert predict.app is not regions[1].predict.app
