"""URLs of Redis: each means one server for every client, or is refused in a line without its password."""

import pytest
from redis.crc import key_slot

from dspyq.core.redis_address import parse_address, spine_urls
from dspyq.core.slots import SLOTS, slot_of

SECRET = "s3cr3t"


def test_a_url_names_host_port_database_user_and_password():
    address = parse_address("redis://app:p%40ss%23%2F@redis.internal:6380/2")
    assert (address.hosts, address.database) == ((("redis.internal", 6380),), 2)
    assert (address.username, address.password) == ("app", "p@ss#/")


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("redis://h/?db=2", "redis://h/2"),
        ("redis://h/2?db=2", "redis://h/2"),
        ("redis://h/2/", "redis://h/2"),
        ("REDIS://H/2", "redis://h/2"),
        (" redis://h/2\n", "redis://h/2"),
        ("valkey://h/2", "redis://h/2"),
        ("valkeys://h/2", "rediss://h/2"),
        ("redis://[::1]/1", "redis://[::1]:6379/1"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"),
        ("unix://:p@/run/redis.sock", "unix://:%70@/run/redis.sock?db=0"),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", "rediss://h?ssl_cert_reqs=required"),
        ("sentinel://a;sentinel://b:26379/1;", "sentinel://a:26379/1;sentinel://b/1"),
        ("CLUSTER://a,[::1],b:7000/64", "cluster://a:6379,[::1]:6379,b:7000/64/"),
    ],
)
def test_two_ways_of_writing_one_redis_mean_the_same(url, other):
    assert parse_address(url) == parse_address(other)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://app:{SECRET}@h:1/2?socket_timeout=5", "redis://h:1/2"),
        (f"redis://{SECRET}@h", "redis://h:6379/0"),
        (f"rediss://:{SECRET}@[::1]/0", "rediss://[::1]:6379/0"),
        (f"unix://:{SECRET}@/run/r.sock?db=1", "unix:///run/r.sock?db=1"),
        (f"sentinel://:{SECRET}@a;sentinel://b/1", "sentinel://a:26379;sentinel://b:26379/1"),
        (f"cluster://app:{SECRET}@a:1,[::1]/64", "cluster://a:1,[::1]:6379/64"),
        (f"clusters://:{SECRET}@a/64?spine=7", "clusters://a:6379/64?spine=7"),
    ],
)
def test_what_people_see_of_an_address_is_where_it_leads(url, shown):
    address = parse_address(url)
    assert str(address) == shown
    assert SECRET not in repr(address) + address.celery_url


def test_options_reach_every_connection_by_their_names(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.touch()
    url = f"rediss://h?socket_timeout=5&socket_connect_timeout=0.5&ssl_ca_certs={ca}&ssl_check_hostname=false"
    assert dict(parse_address(url).options) == {
        "socket_timeout": 5.0,
        "socket_connect_timeout": 0.5,
        "ssl_ca_certs": str(ca),
        "ssl_check_hostname": False,
    }


def test_options_of_one_sentinel_hold_for_all():
    address = parse_address(f"sentinel://a;sentinel://app:{SECRET}@b/3?socket_timeout=2")
    assert (address.username, address.password, address.database) == ("app", SECRET, 3)
    assert dict(address.options) == {"socket_timeout": 2.0}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("redis.internal:6379", "must begin with"),
        (f"http://:{SECRET}@h", "must begin with"),
        (f"redis+cluster://:{SECRET}@h", "must begin with"),
        (f"redis://:{SECRET}#x@h/0", "percent"),
        (f"redis://:{SECRET}/x@h/0", "encode"),
        (f"redis://:1/{SECRET}@h/0", "percent-encoded"),
        (f"redis://:1?{SECRET}@h/0", "percent-encoded"),
        (f"redis://:1?a={SECRET}@h/0", "percent-encoded"),
        (f"redis://:[{SECRET}@h/0", "encode"),
        (f"redis://:{SECRET} x@h/0", "blank"),
        (f"redis://:{SECRET}\x00x@h/0", "control character"),
        (f"redis://:{SECRET}@h:port/0", "port"),
        (f"redis://:{SECRET}@h:0/0", "port"),
        (f"redis://:{SECRET}@h:99999/0", "port"),
        (f"redis://:{SECRET}@:6379/0", "names no host"),
        ("redis:///0", "names no host"),
        (f"redis://:{SECRET}@a,b/0", "several servers"),
        (f"redis://:{SECRET}@a:1;redis://:{SECRET}@b:1", "port"),
        (f"redis://:{SECRET}@h/jobs", "number of a database"),
        (f"redis://:{SECRET}@h/-1", "number of a database"),
        (f"redis://:{SECRET}@h/1?db=2", "two databases"),
        (f"redis://:{SECRET}@h?db=x", "db must be"),
        (f"redis://:{SECRET}@h?socket_timeout=0", "socket_timeout must be"),
        (f"redis://:{SECRET}@h?socket_timeout=nan", "socket_timeout must be"),
        (f"redis://:{SECRET}@h?timeout=5", "unknown option timeout; there are db, socket_timeout"),
        (f"redis://:{SECRET}@h?password={SECRET}", "unknown option password"),
        (f"redis://:{SECRET}@h?socket_timeout=1&socket_timeout=2", "twice"),
        (f"redis://:{SECRET}@h?ssl_cert_reqs=none", "begin with rediss://"),
        (f"rediss://:{SECRET}@h?ssl_cert_reqs=never", "ssl_cert_reqs must be"),
        (f"rediss://:{SECRET}@h?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs must be a file"),
        (f"unix://:{SECRET}@run/redis.sock", "whole path"),
        ("unix://", "whole path"),
        (f"sentinel://:{SECRET}@a;redis://b", "each sentinel must begin"),
        (f"sentinel://:{SECRET}@a/1;sentinel://b/2", "differ in the database"),
        (f"sentinel://:{SECRET}@a;sentinel://:other@b", "differ in the password"),
        (f"cluster://:{SECRET}@a,b", "number of its spines, 1 to 256, as /64"),
        (f"cluster://:{SECRET}@a/0", "number of its spines"),
        (f"cluster://:{SECRET}@a/257", "number of its spines"),
        (f"cluster://:{SECRET}@a,,b/64", "names no host"),
        (f"cluster://:{SECRET}@a,b:port/64", "port"),
        (f"cluster://a,:{SECRET}#x@b/64", "percent"),
        (f"cluster://:{SECRET}@a/64?db=1", "one database"),
        (f"cluster://:{SECRET}@a/64?spine=64", "spine must be less than 64"),
        (f"cluster://:{SECRET}@a/64?spine=-1", "a number from 0, or home"),
        (f"cluster://:{SECRET}@a/64?ssl_cert_reqs=none", "clusters://"),
        (f"redis://:{SECRET}@a/0?spine=1", "unknown option spine"),
    ],
)
def test_a_url_that_cannot_mean_one_redis_is_refused_without_a_word_of_its_password(url, reason):
    with pytest.raises(ValueError, match=reason) as refused:
        parse_address(url)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_url_of_a_cluster_names_its_nodes_and_the_number_of_its_spines():
    address = parse_address(f"cluster://app:{SECRET}@a:1,b/64?socket_timeout=2")
    assert address.hosts == (("a", 1), ("b", 6379))
    assert (address.spines, address.spine, address.tag) == (64, "", "")
    assert (address.username, address.password, dict(address.options)) == ("app", SECRET, {"socket_timeout": 2.0})
    assert [parse_address(url).spine for url in spine_urls("cluster://a/3?socket_timeout=2")] == ["0", "1", "2"]


@pytest.mark.parametrize("spines", [1, 3, 64, 256])
def test_spines_of_a_cluster_have_slots_of_their_own_in_equal_parts(spines):
    tags = [parse_address(url).tag for url in spine_urls(f"cluster://a/{spines}")]
    slots = [slot_of(tag) for tag in tags]
    assert [slot * spines // SLOTS for slot in slots] == list(range(spines))
    assert slots == [key_slot(f"{tag}dspy:v1:job:1".encode()) for tag in tags]
    assert slot_of(parse_address(f"cluster://a/{spines}?spine=home").tag) not in slots
