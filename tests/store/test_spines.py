"""Spines: where questions and tasks are, and what is one for each spine."""

import contextlib
import uuid

import pytest

from dspyq.client.configured import Configured
from dspyq.config.settings import load_settings, read_settings
from dspyq.core.runtime import current
from dspyq.errors import ConfigurationError
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.spines import (
    NoSpine,
    bucket_of,
    by_owners,
    by_spine,
    each_spine,
    id_beside,
    on_each_spine,
    on_spine,
    owner_of,
    process_spines,
)

URLS = ["redis://a:6379/0", "redis://b:6379/0", "redis://c:6379/0"]
HASHES = [f"{number:064x}" for number in range(256)]


@contextlib.contextmanager
def spines(**settings):
    configured = Configured(read_settings({"redis_urls": URLS, **settings}, {}))
    with configured.active():
        yield
    configured.close()


def address(client):
    return client.connection_pool.connection_kwargs["host"]


def test_a_task_is_on_the_spine_of_its_question():
    with spines():
        for input_hash in HASHES:
            task_id = id_beside(input_hash, str(uuid.uuid4()))
            assert uuid.UUID(task_id)
            assert process_spines().of(task_id) is process_spines().of(input_hash)


def test_with_one_redis_ids_stay_as_they_are_and_all_is_in_one_place():
    task_id = str(uuid.uuid4())
    for urls in ({}, {"redis_urls": ["redis://a:6379/0"]}):
        configured = Configured(read_settings(urls, {}))
        with configured.active():
            assert id_beside(HASHES[7], task_id) == task_id
            assert process_spines() is None
            assert money_client() is jobs_client()
            with on_spine(HASHES[7]):
                assert money_client() is jobs_client()
            assert list(each_spine()) == [None]


def test_keys_of_a_question_are_refused_outside_of_its_spine():
    with spines(), pytest.raises(NoSpine):
        jobs_client()


def test_each_spine_has_a_client_of_its_own_and_money_has_one():
    with spines(money_url="redis://money:6379/0"):
        assert [address(jobs_client()) for _ in each_spine()] == ["a", "b", "c"]
        assert {address(money_client()) for _ in each_spine()} == {"money"}
        assert len({id(money_client()) for _ in each_spine()}) == 1


def fail():
    raise KeyError(current().number)


def in_a_loop():
    for _ in each_spine():
        fail()


def in_a_loop_over_questions():
    for _ in by_spine(HASHES, HASHES):
        fail()


def in_a_loop_over_owners():
    for _ in by_owners(HASHES, HASHES):
        fail()


def in_an_expression():
    on_each_spine(fail)


def test_an_expression_has_the_outcome_of_each_spine_or_of_the_one_redis():
    with spines():
        assert on_each_spine(lambda: address(jobs_client())) == ["a", "b", "c"]
    configured = Configured(read_settings({"redis_urls": URLS[:1]}, {}))
    with configured.active():
        assert on_each_spine(lambda: address(jobs_client())) == ["a"]


@pytest.mark.parametrize("act", [in_a_loop, in_a_loop_over_questions, in_a_loop_over_owners, in_an_expression])
def test_an_error_out_of_each_spine_is_handled_outside_of_it(act):
    with spines():
        outside, seen = current(), []
        try:
            act()
        except KeyError:
            seen.append(current())
        assert seen == [outside]


def test_another_spine_takes_over_its_share_and_moves_nothing_between_others():
    names = list("abc")
    before = [names[owner_of(bucket, names)] for bucket in range(256)]
    after = [[*names, "d"][owner_of(bucket, [*names, "d"])] for bucket in range(256)]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"d"}
    assert 32 < len(moved) < 96
    assert min(before.count(name) for name in names) > 50


def test_items_are_grouped_by_spine_with_their_places():
    with spines():
        found = {}
        for places, items in by_spine(HASHES, HASHES):
            assert len({address(jobs_client())} | {str(process_spines().of(each).number) for each in items}) == 2
            found |= dict(zip(places, items, strict=True))
        assert [found[place] for place in range(256)] == HASHES


@pytest.mark.parametrize("name", ["order of the day", "day-1", "order+f", "x", "１１", "\ud800", "order 17"])
def test_an_id_of_a_users_own_has_a_bucket_of_its_own_form(name):
    assert 0 <= bucket_of(name) < 256
    assert bucket_of("order-17") == 0x17


@pytest.mark.parametrize("settings", [{"redis_url": "redis://d"}, {"redis_urls": [URLS[0], URLS[0]]}])
def test_addresses_that_contradict_each_other_are_refused(settings):
    with pytest.raises(ConfigurationError, match="redis_urls"):
        read_settings({"redis_urls": URLS, **settings}, {})


def test_a_list_of_servers_that_is_no_json_is_refused_in_a_line_that_shows_the_form(monkeypatch):
    monkeypatch.setenv("DSPYQ_REDIS_URLS", "redis://a")
    with pytest.raises(ConfigurationError, match=r"redis_urls.*holds JSON, as DSPYQ_REDIS_URLS="):
        load_settings(None)
