"""Keys at the door, by real servers: refusals, rights, limits, tenants, and a revocation that every process notices."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from dspyq.api_keys.form import make_key, sha256_of
from dspyq.api_keys.store import ApiKeys
from dspyq.config.key_grants import ALL_RIGHTS, KeyGrant
from dspyq.store.clients import jobs_client
from tests.support.processes import wait_until

pytestmark = pytest.mark.usefixtures("configured")
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a server that is refused, or only checked


@pytest.fixture
def keys():
    return ApiKeys(jobs_client())


def ask(server, key, question="one", *, program="qa", headers=None, **members):
    """Ask a program with a key."""
    sent = {"Authorization": f"Bearer {key.text}", **(headers or {})}
    body = {"inputs": {"question": question}, **members}
    return server.api.post(f"/v1/programs/{program}/predictions", json=body, headers=sent)


def own_key(server, key, **headers):
    return server.api.get("/v1/key", headers={"Authorization": f"Bearer {key.text}", **headers})


def test_a_door_with_keys_refuses_all_bad_ones_alike(door, keys):
    good, expired, revoked = (keys.create("acme", name, KeyGrant()) for name in "abc")
    keys.edit(expired.id, {}, {"expires_at": repr(time.time() - 1)})
    keys.revoke(revoked.id)
    server = door()
    refused = {
        "none": {},
        "unknown": {"Authorization": f"Bearer {make_key().text}"},
        "wrong": {"Authorization": f"Bearer {make_key(good.id).text}"},
        "revoked": {"Authorization": f"Bearer {revoked.text}"},
        "expired": {"Authorization": f"Bearer {expired.text}"},
        "cut": {"Authorization": f"Bearer {good.text[:-1]}"},
        "case": {"Authorization": f"Bearer {good.text.swapcase()}"},
        "scheme": {"Authorization": f"Basic {good.text}"},
        "bytes": {"Authorization": b"Bearer \xff\xfe"},
    }
    replies = [server.api.get("/v1/key", headers={**headers, "X-Request-Id": "r"}) for headers in refused.values()]
    replies.append(
        server.api.get("/v1/key", params={"key": good.text, "token": good.text}, headers={"X-Request-Id": "r"})
    )
    assert {reply.status_code for reply in replies} == {401}
    assert {reply.headers["www-authenticate"] for reply in replies} == {"Bearer"}
    assert len({reply.text for reply in replies}) == 1
    assert len({tuple((n, v) for n, v in reply.headers.items() if n != "date") for reply in replies}) == 1
    assert own_key(server, good).status_code == 200
    assert server.api.get("/v1/key", headers={"X-API-Key": good.text}).json()["id"] == good.id
    assert server.api.get("/v1/key", headers={"authorization": f"bearer {good.text}"}).status_code == 200
    assert server.metric("dspyq_keys_refused_total", why="key") == len(replies)


def test_a_revoked_key_is_refused_in_every_process_within_a_second(door, keys):
    made, kept = keys.create("acme", "ci", KeyGrant()), keys.create("acme", "kept", KeyGrant())
    servers = [door(), door()]
    for server in servers:
        assert {own_key(server, each).status_code for each in (made, kept)} == {200}
    keys.revoke(made.id)
    revoked_at = time.monotonic()
    for server in servers:
        wait_until(lambda server=server: own_key(server, made).status_code == 401, 60, "the refusal")
    # The promise is a second; a busy machine may take longer to ask.
    assert time.monotonic() - revoked_at < 20
    assert {own_key(server, kept).status_code for server in servers} == {200}


def test_a_key_is_verified_again_once_redis_is_back(door, fresh_redis_server, configure, settings_file, tmp_path):
    path, redis = settings_file({"redis_timeout_seconds": 1.0}), fresh_redis_server(append_only_directory=tmp_path)
    configure(path, redis_url=redis.url)
    made = ApiKeys(jobs_client()).create("acme", "ci", KeyGrant())
    server = door(path, redis_url=redis.url)
    assert own_key(server, made).status_code == 200
    redis.process.kill()
    # Up to 0.75 s its memory may be used; from then on a revocation could be missed.
    away = wait_until(lambda: (reply := own_key(server, made)).status_code != 200 and reply, 60, "the refusal")
    assert (away.status_code, away.json()["type"].rpartition("/")[2]) == (503, "storage-unavailable")
    redis.process.start()
    redis.process.ready()
    wait_until(lambda: own_key(server, made).status_code == 200, 60, "the key")
    ApiKeys(jobs_client()).revoke(made.id)
    wait_until(lambda: own_key(server, made).status_code == 401, 60, "the refusal")


def test_revoking_the_last_key_does_not_open_the_door(door, keys):
    made = keys.create("acme", "ci", KeyGrant())
    server = door()
    keys.revoke(made.id)
    wait_until(lambda: own_key(server, made).status_code == 401, 60, "the refusal")
    assert server.api.get("/v1/key").status_code == 401
    assert door().api.get("/v1/key").status_code == 401  # started after that


def test_a_keyless_door_stays_open_to_its_own_machine_and_verifies_keys_that_are_sent(door, keys):
    server = door()
    assert server.api.get("/v1/key").json()["tenant"] is None
    for headers in (
        {"X-Forwarded-For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}, {"Via": "1.1 proxy"},
        {"X-Forwarded-Anything": "x"}, {"Host": "example.com"}, {"Host": "127.0.0.1.example.com:80"},
    ):  # fmt: skip
        assert server.api.get("/v1/key", headers=headers).status_code == 401, headers
    made = keys.create("acme", "ci", KeyGrant())
    assert own_key(server, made).json()["tenant"] == "acme"
    assert own_key(server, make_key()).status_code == 401
    assert server.api.get("/v1/key", headers={"Authorization": "Bearer placeholder"}).json()["tenant"] is None
    assert own_key(server, made, **{"X-Forwarded-For": "10.1.2.3"}).status_code == 200


def test_other_addresses_need_a_key_before_the_server_starts(dspyq, keys):
    refused = dspyq("serve", "--host", EVERYWHERE, "--port", "0", "--check", ok=False)
    assert refused.stderr.count("\n") == 1
    assert "dspyq keys create" in refused.stderr
    keys.create("acme", "ci", KeyGrant())
    assert "open to keys" in dspyq("serve", "--host", EVERYWHERE, "--port", "0", "--check").stdout


def test_a_key_has_no_rights_but_its_own(door, keys):
    narrow = keys.create("acme", "narrow", KeyGrant(programs=("other-*",), priority=5))
    looker = keys.create("acme", "looker", KeyGrant(can=("usage",)))
    usual = keys.create("acme", "usual", KeyGrant(priority=5))
    forcing = keys.create("acme", "forcing", KeyGrant(variants=("challenger",)))
    server = door()
    assert ask(server, narrow).status_code == 404
    assert ask(server, narrow).json()["type"] == ask(server, narrow, program="nowhere").json()["type"]
    for key, members in (
        (looker, {}), (usual, {"variant": "control"}), (usual, {"refresh": True}), (usual, {"priority": 0}),
        (forcing, {"variant": "control"}),
    ):  # fmt: skip
        reply = ask(server, key, **members)
        assert (reply.status_code, reply.json()["type"].rpartition("/")[2]) == (403, "forbidden"), members
    assert own_key(server, narrow).json()["programs"] == []
    assert [each["name"] for each in server.api.get("/v1/programs", headers=_bearer(usual)).json()["data"]] == ["qa"]
    assert server.api.get("/v1/programs", headers=_bearer(narrow)).json()["data"] == []


def test_a_key_is_used_from_its_pages_and_networks_alone(door, keys):
    elsewhere = keys.create("acme", "elsewhere", KeyGrant(networks=("10.0.0.0/8",)))
    here = keys.create("acme", "here", KeyGrant(networks=("10.0.0.0/8", "127.0.0.0/8")))
    page = keys.create("acme", "page", KeyGrant(origins=("https://app.example.com",)))
    server = door()
    assert own_key(server, elsewhere).status_code == 403
    assert own_key(server, elsewhere, **{"X-Forwarded-For": "10.1.1.1"}).status_code == 403
    assert own_key(server, here).status_code == 200
    assert own_key(server, page, Origin="https://app.example.com").status_code == 200
    assert own_key(server, page, Origin="https://app.example.com.evil.net").status_code == 403
    assert own_key(server, page).status_code == 200


def test_a_key_shows_its_tenant_rights_and_limits(door, keys):
    made = keys.create("acme", "ci", KeyGrant(rate=20, most_waiting=7, priority=3, variants=("control",)))
    shown = own_key(door(), made).json()
    assert shown == {
        "object": "key", "id": made.id, "tenant": "acme", "name": "ci", "programs": ["qa"], "variants": ["control"],
        "priority": 3, "can": ["predict", "stream", "batch", "feedback", "usage", "variant"], "rate": 20, "burst": 20,
        "most_waiting": 7, "expires_at": None,
    }  # fmt: skip


def test_a_key_of_the_file_needs_no_command(door, settings_file, configure):
    text = make_key().text
    path = settings_file(
        {"serve": {"keys": {"ci": {"sha256": sha256_of(text), "tenant": "acme", "programs": ["qa"], "rate": 50}}}}
    )
    configure(path)
    server = door(path)
    shown = server.api.get("/v1/key", headers={"Authorization": f"Bearer {text}"}).json()
    assert (shown["tenant"], shown["name"], shown["rate"]) == ("acme", "ci", 50)
    assert server.api.get("/v1/key").status_code == 401


def test_a_rate_is_kept_over_several_servers_and_stated(door, keys):
    made = keys.create("acme", "ci", KeyGrant(rate=20, burst=10))
    free = keys.create("acme", "free", KeyGrant())
    servers = [door(), door()]
    began = time.monotonic()

    def flood(server):
        return [own_key(server, made) for _ in range(60)]

    with ThreadPoolExecutor(4) as threads:
        replies = [reply for found in threads.map(flood, servers * 2) for reply in found]
    took = time.monotonic() - began
    good = [reply for reply in replies if reply.status_code == 200]
    refused = [reply for reply in replies if reply.status_code == 429]
    assert len(good) + len(refused) == len(replies)
    # The burst in Redis is smaller by the turns of a tenth of a second, and each server may lose as many.
    assert 10 - 3 * 2 <= len(good) <= 10 + 20 * took
    if refused:  # all are let in where the machine is too busy to reach the rate
        reply = refused[0]
        assert reply.json()["type"].endswith("/too-many-requests")
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.headers["x-should-retry"] == "true"
        assert reply.headers["ratelimit"].startswith('"key";r=0;t=')
    assert {reply.headers["ratelimit-policy"] for reply in replies} == {'"key";q=10;w=1'}
    other = own_key(servers[0], free)
    assert other.status_code == 200
    assert "ratelimit" not in other.headers


@pytest.mark.usefixtures("shared_worker")
def test_tenants_share_no_answer_and_no_prediction(door, keys):
    ours, theirs = keys.create("acme", "ci", KeyGrant(can=ALL_RIGHTS)), keys.create("other", "ci", KeyGrant())
    colleague = keys.create("acme", "second", KeyGrant())
    server = door()
    first = ask(server, ours).json()
    assert ask(server, theirs).json()["metadata"]["cached"] is False
    assert ask(server, colleague).json()["metadata"]["cached"] is True
    place = first["urls"]["self"]
    assert server.api.get(place, headers=_bearer(theirs)).status_code == 404
    assert server.api.post(f"{place}/cancel", headers=_bearer(theirs)).status_code == 404
    assert server.api.delete(place, headers=_bearer(theirs)).status_code == 404
    changed = place[:-1] + ("A" if place[-1] != "A" else "B")
    assert server.api.get(changed, headers=_bearer(ours)).status_code == 404
    assert server.api.get(place, headers=_bearer(colleague)).json()["outputs"] == first["outputs"]
    assert server.api.get(place).status_code == 401


@pytest.mark.usefixtures("shared_worker")
def test_streams_and_idempotency_keys_of_another_tenant_are_not_there(door, keys):
    ours, theirs = keys.create("acme", "ci", KeyGrant()), keys.create("other", "ci", KeyGrant())
    silent = keys.create("acme", "silent", KeyGrant(can=("predict",)))
    server = door()
    once = {"Idempotency-Key": "order-7"}
    first, second = ask(server, ours, "two", headers=once).json(), ask(server, theirs, "three", headers=once)
    assert (second.status_code, second.json()["outputs"]) == (200, {"answer": "echo:three"})
    assert "idempotent-replayed" not in second.headers
    events, token = httpx.URL(first["urls"]["events"]).path, httpx.URL(first["urls"]["events"]).params["token"]
    other = httpx.URL(second.json()["urls"]["events"])
    assert server.api.get(events, headers=_bearer(theirs)).status_code == 404
    assert server.api.get(events, headers=_bearer(silent)).status_code == 403
    assert server.api.get(other.path, params={"token": token}).status_code == 401
    assert server.api.get(events, params={"token": other.params["token"]}).status_code == 401
    assert server.api.get(events).status_code == 401
    for good in ({"headers": _bearer(ours)}, {"params": {"token": token}}):
        assert "event: completed" in server.api.get(events, **good).text


def test_a_key_has_its_own_places_to_wait(door, keys):
    made, other = keys.create("acme", "ci", KeyGrant(most_waiting=2)), keys.create("acme", "b", KeyGrant())
    server = door()  # and no worker
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(ask, server, made, f"q{number}") for number in range(2)]
        wait_until(lambda: server.metric("dspyq_http_waiting") == 2, 60, "two that wait")
        refused = ask(server, made, "q3")
        assert (refused.status_code, refused.json()["retryable"]) == (429, True)
        assert ask(server, other, "q3", headers={"Prefer": "respond-async"}).status_code == 202
        server.send(signal.SIGTERM)  # which answers those that wait
        assert {each.result().status_code for each in waiting} == {202}


def test_requests_are_counted_by_key_and_no_key_is_in_a_log_or_a_metric(door, keys, dspyq):
    made = keys.create("acme", "ci", KeyGrant(rate=0.01, burst=3))
    server = door()
    for _ in range(5):
        own_key(server, made)
    server.api.get(f"/v1/{made.text}", headers={"X-Request-Id": made.text, "Authorization": f"Bearer {made.text}"})
    server.api.get("/v1/key", params={"key": made.text}, headers={"Authorization": f"Bearer {made.text}x"})

    def usage():
        return json.loads(dspyq("keys", "show", made.id, "--json").stdout)

    shown = wait_until(lambda: (found := usage())["usage"] and found, 60, "the counts")
    assert [(each["requests"], each["refused"]) for each in shown["usage"]] == [(3, 2)]
    assert shown["last_used_day"] == shown["usage"][0]["day"]
    page = httpx.get(f"{server.metrics_url}/metrics").text
    assert 'dspyq_keys_refused_total{why="rate"} 2.0' in page
    secret = made.text.rpartition("_")[2]
    entries = wait_until(lambda: [e for e in server.entries() if e.get("key") == made.id], 60, "the access log")
    assert entries[0]["route"] == "/v1/key"
    assert secret[:10] not in server.logs() + page
    assert made.id not in page


def _bearer(key):
    return {"Authorization": f"Bearer {key.text}"}
