"""The check of a Redis finds unsuitable settings, and names in a line what to change."""

import pytest

from dspyq.store.scripts import Script
from dspyq.store.server import judge, look_at_server

GOOD = {
    "redis_version": "7.0.15",
    "cluster_enabled": 0,
    "role": "master",
    "maxmemory": 0,
    "maxmemory_policy": "noeviction",
}


def kinds(info, *, holds_jobs=True):
    return [each.kind for each in judge(GOOD | info, "redis_url", holds_jobs=holds_jobs)]


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"redis_version": "8.2.3"},
        {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"},
        {"maxmemory": 100},
        {"maxmemory_policy": "allkeys-lru"},  # without a bound nothing is evicted
    ],
)
def test_a_server_that_keeps_what_it_is_given_is_good(info):
    assert kinds(info) == []


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        ({"redis_version": "6.2.14"}, "version"),
        ({"redis_version": "5.0"}, "version"),
        ({"redis_version": "unstable"}, "version"),
        ({"cluster_enabled": 1}, "cluster"),
        ({"redis_mode": "cluster"}, "cluster"),
        ({"role": "slave"}, "role"),
        ({"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}, "eviction"),
        ({"maxmemory": 100, "maxmemory_policy": "volatile-ttl"}, "eviction"),
    ],
)
def test_a_server_that_cannot_keep_it_is_named_in_a_line(info, kind):
    (found,) = judge(GOOD | info, "broker_url", holds_jobs=True)
    assert (found.kind, found.is_fault) == (kind, True)
    assert found.text.startswith("broker_url: ")
    assert "\n" not in found.text


def test_answers_alone_may_be_evicted():
    assert kinds({"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}, holds_jobs=False) == []
    assert kinds({"role": "slave"}, holds_jobs=False) == ["role"]


def test_what_is_found_on_a_real_server(fresh_redis_server):
    server = fresh_redis_server()
    client = server.client()
    assert look_at_server(client, "redis_url", holds_jobs=True) == []
    server.cli("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "volatile-lru")
    (found,) = look_at_server(client, "redis_url", holds_jobs=True)
    assert "(volatile-lru)" in found.text
    server.cli("CONFIG", "SET", "maxmemory", "0")
    master = fresh_redis_server()
    server.cli("REPLICAOF", "127.0.0.1", master.port)
    assert [each.kind for each in look_at_server(client, "redis_url", holds_jobs=True)] == ["role"]


def test_a_user_without_the_right_to_info_is_reported_as_unseen(fresh_redis_server):
    server = fresh_redis_server()
    server.cli("ACL", "SETUSER", "default", "-info")
    (found,) = look_at_server(server.client(), "redis_url", holds_jobs=True)
    assert (found.kind, found.is_fault) == ("unseen", False)
    assert "INFO" in found.text


@pytest.mark.parametrize("right", [["-@scripting"], ["resetkeys", "~others:*"]])
def test_a_user_without_the_right_to_scripts_on_our_keys_is_refused(fresh_redis_server, right):
    server = fresh_redis_server()
    server.cli("ACL", "SETUSER", "default", *right)
    (found,) = look_at_server(server.client(), "redis_url", holds_jobs=True)
    assert (found.kind, found.is_fault) == ("scripts", True)


def test_a_script_that_the_server_rejects_raises_the_reason_and_not_that_it_is_unknown(fresh_redis_server):
    script = Script(fresh_redis_server().client(), "#!lua flags=nothing-known\nreturn 1")
    with pytest.raises(Exception, match=r"[Ff]lag"):
        script()
