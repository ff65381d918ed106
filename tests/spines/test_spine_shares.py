"""Workers that serve some of the spines: each chooses those that the fewest others serve."""

import pytest

from dspyq.delivery.served_spines import process_served_spines
from dspyq.delivery.spine_shares import SpineShare
from dspyq.store.clients import money_client
from dspyq.store.spines import process_spines
from tests.spines.test_spine_workers import all_answered, send
from tests.support.processes import wait_until

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]


def share(wanted=1):
    return SpineShare(money_client(), process_spines().all, wanted)


def own(one):
    """Return the spines of a worker after its next beat."""
    return one.choose()


def let_leases_run_out(spines):
    for member in spines.money.cli("ZRANGE", "dspy:v1:spines-served", 0, -1):
        spines.money.cli("ZADD", "dspy:v1:spines-served", 1, member)


def test_workers_choose_the_spines_that_the_fewest_others_serve():
    chosen = [share().choose() for _ in range(6)]
    assert all(len(each) == 1 for each in chosen)
    assert set().union(*chosen[:3]) == set().union(*chosen[3:]) == {0, 1, 2}


def test_a_worker_keeps_its_spines_from_beat_to_beat():
    first, second = share(2), share(2)
    chosen = first.choose(), second.choose()
    assert (own(first), own(second)) == chosen


def test_the_spine_of_a_worker_that_ended_is_adopted_at_the_next_beat_of_another():
    shares = [share() for _ in range(3)]
    chosen = [each.choose() for each in shares]
    shares[0].release()
    assert own(shares[1]) == chosen[1] | chosen[0]
    assert own(shares[2]) == chosen[2]


def test_the_spine_of_a_dead_worker_is_adopted_once_its_lease_has_run_out(spines):
    shares = [share() for _ in range(3)]
    chosen = [each.choose() for each in shares]
    assert own(shares[1]) == chosen[1]
    let_leases_run_out(spines)
    assert own(shares[1]) >= chosen[1]
    assert own(shares[1]) | own(shares[2]) == {0, 1, 2}


def test_a_spine_that_none_has_served_yet_waits_a_lease_for_a_worker_of_its_own(spines):
    first = share()
    chosen = first.choose()
    assert own(first) == chosen
    for name in spines.money.cli("HKEYS", "dspy:v1:spines-left"):
        spines.money.cli("HSET", "dspy:v1:spines-left", name, 1)
    assert own(first) == {0, 1, 2}


def test_a_worker_serves_what_it_adopts():
    first, other = share(), share(2)
    process_served_spines().choose(first.choose())
    other.choose()
    begun = []
    process_served_spines().on_new.append(begun.append)
    other.release()
    first.renew()
    assert len(begun) == 2
    assert {spine.number for spine in process_served_spines().all} == {0, 1, 2}


@pytest.mark.long  # its short forms are above
def test_questions_of_every_spine_are_answered_by_workers_that_serve_one_each(spine_worker, settings_file):
    settings = settings_file({"workers": {"spines": 1}})
    workers = [spine_worker(settings, waits=False) for _ in range(2)]
    for each in workers:
        each.ready()
    sent = [send(number, f"question of {number}") for number in range(3)]
    wait_until(lambda: all_answered(sent), 120, "the answers")
    workers[0].kill()
    sent = [send(number, f"another of {number}") for number in range(3)]
    wait_until(lambda: all_answered(sent), 120, "the answers after a worker's death")
