"""Experiments over processes that fork, configurations side by side, and a Redis that is away, or comes back empty."""

from __future__ import annotations

import time

import pytest

import dspyq
from dspyq.errors import FeedbackRefused, RedisUnavailable
from dspyq.experiments import administration
from dspyq.experiments.known import process_states
from dspyq.experiments.placement import place
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from tests.support.configuration import API_KEY, API_KEY_VARIABLE, default_document, merged, with_challenger
from tests.support.experiments import with_experiment

TODAY = 20_000
AWAY_SECONDS = 2.5


def begun(program):
    return administration.start(program), administration.plan_of(program).table


def calls_and_hits(state, table):
    metrics = [each.metrics["call.hit"].by_unit for each in read_sums(state, table, today=TODAY).values()]
    return tuple(int(sum(sum(getattr(each, side)) for each in metrics)) for side in ("denominators", "numerators"))


def asked_by_forks():
    import atexit
    import os

    from dspyq import predict

    def ask(times):
        for _ in range(times):
            predict.apply_async(kwargs={"question": "hot"}, unit="user").get(timeout=20)

    def end():
        atexit._run_exitfuncs()  # noqa: SLF001 - as Python does at the end of a process
        os._exit(0)

    ask(4)  # a run and three hits, which no flush has sent yet
    children = []
    for number in range(2):
        child = os.fork()
        if child == 0:  # as a worker of a server that forks once it has loaded its application
            ask(5)
            if number == 0:
                grandchild = os.fork()
                if grandchild == 0:
                    ask(7)
                    end()
                os.waitpid(grandchild, 0)
            end()
        children.append(child)
    ask(2)
    return [os.waitpid(child, 0)[1] for child in children]


def test_calls_of_a_process_and_its_forks_are_counted_once_each(settings_file, configure, worker, run_producer):
    path = settings_file(with_experiment(), challenger=0.5)
    state, table = begun(configure(path).programs["qa"])
    worker(path)
    assert run_producer(asked_by_forks, path) == [0, 0]
    assert calls_and_hits(state, table) == (4 + 5 + 7 + 5 + 2, 3 + 5 + 7 + 5 + 2)


@pytest.fixture
def regions(fresh_redis_server, session_endpoint, monkeypatch):
    """Two configurations of this process, with an experiment of the same name and program, and another control."""
    monkeypatch.setenv(API_KEY_VARIABLE, API_KEY)
    document = merged(with_challenger(default_document(session_endpoint.url)), with_experiment())
    other = merged(document, with_experiment(arms=["challenger", "control"]))
    pair = [dspyq.configured(tables, redis_url=fresh_redis_server().url) for tables in (document, other)]
    yield pair
    for each in pair:
        each.close()


def test_experiments_of_two_configurations_in_one_process_are_apart(regions):
    states = []
    for region in regions:
        with region.active():
            states.append(begun(region.settings.programs["qa"]))
    with regions[1].active():
        administration.stop("qa")
    handles = [
        region.predict.apply_async(kwargs={"question": "hi"}, unit=f"user {number}")
        for number in range(4)
        for region in regions
    ]
    assert [handle.request.exposure is not None for handle in handles] == [True, False] * 4
    assert {handle.request.variant.name for handle in handles[1::2]} == {"challenger"}
    for region, (state, table) in zip(regions, states, strict=True):
        with region.active():
            for arm in state.arms:
                process_tally().count(handles[0].request.exposure._replace(arm=arm), "an answer", 0.1, is_slow=False)
            process_tally().flush()
            is_first = region is regions[0]
            assert calls_and_hits(state, table) == ((2, 2) if is_first else (0, 0))


@pytest.fixture
def own(settings_file, configure, worker, fresh_redis_server):
    """A server of the test's own with an experiment and a worker; returns the server, the program and how to ask."""
    server = fresh_redis_server()
    feedback = {"thumbs": {"low": 0, "high": 1}}
    path = settings_file({**with_experiment(feedback=feedback), "redis_timeout_seconds": 1}, challenger=0.5)
    program = configure(path, redis_url=server.url).programs["qa"]
    worker(path, redis_url=server.url)

    def ask(question="hot"):
        from dspyq import predict

        return predict.apply_async(kwargs={"question": question}, unit="user").get(timeout=20)

    return server, program, ask


def ask_until_it_fails(ask):
    """Memory serves an answer until it distrusts its silent channel."""
    for _ in range(20):
        ask()
        time.sleep(AWAY_SECONDS / 10)


def test_hits_before_and_after_redis_was_away_are_counted(own):
    server, program, ask = own
    state, table = begun(program)
    for _ in range(5):
        ask()
    server.process.stop()
    with pytest.raises(RedisUnavailable):
        ask_until_it_fails(ask)
    server.process.cont()
    asked = 0
    while not asked:
        asked += ask().metadata.exposure is not None
    process_tally().flush()
    calls, hits = calls_and_hits(state, table)
    assert calls == hits + 1
    assert hits >= 5


def test_a_redis_that_comes_back_empty_has_no_experiment_until_one_is_started(own):
    server, program, ask = own
    before, _ = begun(program)
    exposed = ask().metadata.exposure
    assert exposed is not None
    server.flush()
    assert ask("after").metadata.exposure is None
    assert process_states().get("qa") is None
    from dspyq import predict

    with pytest.raises(FeedbackRefused, match="no more"):
        predict.feedback(exposed, name="thumbs", value=1)
    state, table = begun(program)
    assert state.epoch != before.epoch
    again = ask("anew")
    assert again.metadata.variant == place(state.placing, "user").variant
    assert predict.feedback(again.metadata.exposure, name="thumbs", value=1) == "new"
    process_tally().flush()
    assert calls_and_hits(state, table) == (1, 0)
