"""Keys in a process's memory, on a real Redis: refusals, round trips, and how soon a change is noticed."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from dspyq.api_keys.form import PREFIX, _checksum, make_key, sha256_of
from dspyq.api_keys.known import KnownKeys
from dspyq.api_keys.record import KeyRecord
from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import KeyGrant
from dspyq.store.clients import jobs_client
from tests.support.processes import wait_until

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def keys():
    return ApiKeys(jobs_client())


@pytest.fixture
def known():
    """The keys of this process, once it hears of changes."""
    found = KnownKeys({}, lambda _: None)
    wait_until(lambda: found.is_trusted, 60, "the channel")
    return found


def verified(known, *texts):
    async def verify():
        return [await known.verify(text) for text in texts]

    return asyncio.run(verify())


def reads(redis_server):
    with redis_server.client() as client:
        return client.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0)


def forged(key_id):
    """A key of this id with a secret of its own, and its checksum right."""
    return make_key(key_id).text


def test_a_key_is_read_once_and_then_verified_from_memory(keys, known, redis_server):
    made = keys.create("acme", "ci", KeyGrant(rate=5))
    (record,) = verified(known, made.text)
    assert (record.id, record.tenant, record.grant.rate) == (made.id, "acme", 5)
    before = reads(redis_server)
    assert all(verified(known, *[made.text] * 50))
    assert reads(redis_server) <= before + 1  # the announcement of the key may have come behind the first read


def test_unknown_wrong_revoked_expired_and_rotated_keys_are_refused(keys, known):
    made, expired, revoked, rotated, graced = (keys.create("acme", name, KeyGrant()) for name in "abcde")
    keys.edit(expired.id, {}, {"expires_at": repr(time.time() - 1)})
    keys.revoke(revoked.id)
    again, later = keys.rotate(rotated.id, 0), keys.rotate(graced.id, 3600)
    refused = [make_key().text, forged(made.id), expired.text, revoked.text, rotated.text, made.text[:-1], "", "x" * 68]
    assert verified(known, *refused) == [None] * len(refused)
    assert all(verified(known, made.text, again.text, graced.text, later.text))


def test_a_right_checksum_and_an_unknown_id_ask_redis_once(known, redis_server):
    unknown = make_key()
    verified(known, unknown.text)
    before = reads(redis_server)
    assert not any(verified(known, *[unknown.text] * 10_000))
    assert reads(redis_server) == before


def test_ids_asked_for_at_once_share_round_trips(known, redis_server):
    async def ask():
        return await asyncio.gather(*(known.verify(make_key().text) for _ in range(2_000)))

    with redis_server.client() as client:
        before = client.info("stats")["total_reads_processed"]
        assert not any(asyncio.run(ask()))
        trips = client.info("stats")["total_reads_processed"] - before
    assert trips < 400  # reads of the socket, of which a large round trip takes several


def test_a_change_is_noticed_at_once(keys, known):
    made = keys.create("acme", "ci", KeyGrant())
    assert verified(known, made.text)[0]
    keys.revoke(made.id)
    wait_until(lambda: verified(known, made.text) == [None], 60, "the refusal")
    unknown = make_key()
    assert verified(known, unknown.text) == [None]


def test_without_the_connection_of_the_memory_cache_each_request_asks_redis(configure, settings_file, redis_server):
    configure(settings_file({"cache": {"memory_entries": 0}}))
    keys, known = ApiKeys(jobs_client()), KnownKeys({}, lambda _: None)
    made = keys.create("acme", "ci", KeyGrant())
    before = reads(redis_server)
    assert all(verified(known, *[made.text] * 5))
    assert reads(redis_server) == before + 5
    keys.revoke(made.id)
    assert verified(known, made.text) == [None]


def test_a_lost_connection_drops_what_is_known(keys, known, redis_server):
    made = keys.create("acme", "ci", KeyGrant())
    assert verified(known, made.text)[0]
    with redis_server.client() as client:
        client.hset(f"dspy:v1:key:{made.id}", "revoked_at", "1")
        client.client_kill_filter(_type="pubsub")
    wait_until(lambda: verified(known, made.text) == [None], 60, "the refusal")
    wait_until(lambda: known.is_trusted, 60, "the channel")
    assert verified(known, made.text) == [None]


def test_a_record_of_another_form_is_never_good(keys, known, redis_server):
    made = keys.create("acme", "ci", KeyGrant())
    with redis_server.client() as client:
        client.hset(f"dspy:v1:key:{made.id}", "scopes", '{"programs": 7}')
        client.publish("dspy:v1:key-changes", made.id)
    wait_until(lambda: verified(known, made.text) == [None], 60, "the refusal")


def test_a_key_of_the_configuration_file_needs_no_redis():
    text = make_key().text
    stated = KeyRecord("", "acme", "ci", sha256_of(text), KeyGrant())
    known = KnownKeys({stated.sha256: stated}, lambda _: None)
    assert verified(known, text) == [stated]


def test_the_time_of_a_refusal_is_alike_for_all_reasons(keys, known):
    made, expired, revoked = (keys.create("acme", name, KeyGrant()) for name in "abc")
    keys.edit(expired.id, {}, {"expires_at": repr(time.time() - 1)})
    keys.revoke(revoked.id)
    texts = {"unknown": make_key().text, "wrong": forged(made.id), "revoked": revoked.text, "expired": expired.text}

    async def measure():
        taken = {name: [] for name in texts}
        for _ in range(400):
            for name, text in texts.items():
                began = time.perf_counter()
                await known.verify(text)
                taken[name].append(time.perf_counter() - began)
        return {name: statistics.median(times[50:]) for name, times in taken.items()}

    wait_until(lambda: known.is_trusted, 60, "the channel")
    medians = asyncio.run(measure())
    assert max(medians.values()) < 4 * min(medians.values()), medians


def test_the_checksum_alone_makes_no_key(known, redis_server):
    body = f"{PREFIX}{'a' * 12}_{'b' * 43}"
    before = reads(redis_server)
    assert verified(known, f"{body}000000") == [None]
    assert reads(redis_server) == before
    assert verified(known, body + _checksum(body)) == [None]
    assert reads(redis_server) == before + 1
