"""The cluster of tests does to its slots and nodes what it states."""

import pytest
import redis

from tests.support.processes import wait_until

pytestmark = pytest.mark.journey

SLOT = 100


def key_of(slot):
    """A key in a slot."""
    return next(f"k{number}" for number in range(200_000) if redis.crc.key_slot(f"k{number}".encode()) == slot)


def test_a_slot_moves_with_its_keys_at_once_and_key_by_key(redis_cluster):
    source, name = redis_cluster.owner(SLOT), key_of(SLOT)
    first, second = [node for node in redis_cluster.masters() if node is not source]
    source.cli("SET", name, "kept")
    redis_cluster.migrate(SLOT, first)
    assert redis_cluster.owner(SLOT) is first
    assert first.cli("GET", name) == "kept"
    with redis_cluster.migrating(SLOT, second):
        assert first.cli("GET", name) == "kept"
    assert redis_cluster.owner(SLOT) is second
    assert second.cli("GET", name) == "kept"


def test_a_node_without_the_slot_counts_whom_it_sends_elsewhere(redis_cluster):
    before = redis_cluster.redirects().moved
    other = next(node for node in redis_cluster.masters() if node is not redis_cluster.owner(SLOT))
    try:
        other.client.connection_pool.get_connection().send_command("GET", key_of(SLOT))
        wait_until(lambda: redis_cluster.redirects().moved == before + 1, 20, "a counted MOVED")
    finally:
        other.client.connection_pool.disconnect()


def test_a_replica_takes_over_by_failover_and_after_a_kill_and_the_dead_come_back_as_replicas(redis_cluster):
    old = redis_cluster.owner(SLOT)
    new = redis_cluster.fail_over(old)
    assert (new.is_master, old.is_master) == (True, False)
    third = redis_cluster.kill_master(new)
    wait_until(lambda: third.is_master, 60, "the replica's promotion")
    assert third is old
    redis_cluster.heal()
    assert (new.process.is_running, new.is_master) == (True, False)
    assert redis_cluster.replica_of(third) is new
