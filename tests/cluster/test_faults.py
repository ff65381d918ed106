"""Slots that move, failovers and deaths of masters under load: nothing is lost, and nothing is paid twice."""

import time

import pytest

from dspyq.core.redis_address import parse_address
from dspyq.core.slots import slot_of
from tests.cluster.traffic import Callers, paid_twice
from tests.support.processes import wait_until

pytestmark = pytest.mark.usefixtures("configured_cluster")
#: How late the last answer may come, after the node timeout; twice as late on a busy machine.
LATE_SECONDS = 20.0


@pytest.fixture
def slots(configured_cluster):
    """The slots of all spines."""
    return [slot_of(parse_address(url).tag) for url in configured_cluster.spine_urls]


def move(cluster, slot):
    owner = cluster.owner(slot)
    cluster.migrate(slot, next(node for node in cluster.masters() if node is not owner))


def asked_while(endpoint, count, name, act):
    """Have callers ask, do something in between, and return what came of the questions and what was paid twice."""
    endpoint.script(latency_seconds=0.3)
    callers = Callers(count, threads=20, name=name)
    callers.start()
    try:
        wait_until(lambda: callers.account.answered > count // 10, 120, "the first answers")
        act()
    finally:
        account = callers.join()
    return account, paid_twice(endpoint, name)


def moves(cluster, slots):
    for slot in slots[:4]:
        move(cluster, slot)
        time.sleep(0.2)


def one_master_fails_over(cluster, slots):
    cluster.fail_over(cluster.owner(slots[1]))


def one_master_dies(cluster, slots):
    cluster.kill_master(cluster.owner(slots[1]))


COUNTS = [pytest.param(80, id="short"), pytest.param(300, id="whole", marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
def test_four_slots_move_under_load_and_no_caller_sees_it(cluster_worker, redis_cluster, endpoint, slots, count):
    cluster_worker()
    account, doubled = asked_while(endpoint, count, "moved slots", lambda: moves(redis_cluster, slots))
    assert (account.answered, account.lost, account.repeats, doubled) == (count, [], [], [])


@pytest.mark.long
@pytest.mark.parametrize("act", [one_master_fails_over, one_master_dies])
def test_another_node_becomes_master_under_load_and_all_are_answered_soon(
    cluster_worker, redis_cluster, endpoint, slots, act
):
    cluster_worker()
    account, doubled = asked_while(endpoint, 300, act.__name__, lambda: act(redis_cluster, slots))
    assert (account.answered, account.lost, doubled) == (300, [], [])
    assert account.slowest_seconds < redis_cluster.node_timeout_seconds + LATE_SECONDS
