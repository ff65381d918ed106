"""Limits, rates and turns of tenants over several spines: one of each for the fleet, wherever their questions are."""

import time

import pytest

from dspyq.client.predict import process_predict
from dspyq.config.settings import get_settings
from dspyq.guards.limits import Limits
from dspyq.guards.tenants import Tenants
from dspyq.store.clients import money_client
from tests.support.processes import eventually, wait_until
from tests.support.spine_questions import one_of_each

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]

CHANGES = {"workers": {"concurrency": 8}}
FLOOD = 900


def ask(question, tenant=None):
    return process_predict().apply_async(kwargs={"question": question}, tenant=tenant)


def account(tenant):
    return Limits(money_client(), get_settings()).of_tenants([tenant])[0]


def limit(tenant, nano_usd):
    Limits(money_client(), get_settings()).override(f"tenant:{tenant}", "daily", nano_usd)


def delayed(spines):
    return [server.client().zcard("dspy:v1:delayed") for server in spines.servers]


@pytest.mark.usefixtures("shared_spine_worker")
def test_a_tenant_s_limit_is_one_for_all_spines_and_stops_no_other(spines, endpoint):
    limit("small", 10**9)
    endpoint.hold()
    first = ask("first", "small")
    endpoint.wait_for_calls(1)
    bound = account("small").held_nano_usd
    endpoint.release()
    first.get(timeout=30)
    eventually(lambda: account("small").held_nano_usd == 0)
    cost = account("small").settled_nano_usd
    most = bound + 6 * cost
    limit("small", most)
    handles = [ask(f"q{number}", "small") for number in range(40)]
    others = one_of_each("other", tenant="other")
    assert all(ask(each, "other").get(timeout=60).answer for each in others)
    seen = []

    def is_used_up():
        seen.append(account("small"))
        return seen[-1].settled_nano_usd + bound > most

    wait_until(is_used_up, 60, "the limit to be used up")
    wait_until(lambda: all(delayed(spines)), 30, lambda: f"delayed on each spine: {delayed(spines)}")
    assert max(each.settled_nano_usd + each.held_nano_usd for each in seen) <= most
    assert spines.keys("dspy:v1:budget:*") == [[], [], []]
    limit("small", 10**9)
    assert all(each.get(timeout=90).answer for each in handles)
    (booked,) = Tenants(money_client(), get_settings()).costs(["small"], days=1)
    assert (booked.calls, booked.billed_nano_usd) == (41, account("small").settled_nano_usd)


@pytest.mark.usefixtures("shared_spine_worker")
def test_a_tenant_s_rate_is_one_for_all_spines(endpoint):
    Tenants(money_client(), get_settings()).set_rate("slow", 0.5)
    started = time.monotonic()
    handles = [ask(each, "slow") for each in one_of_each("slow", tenant="slow")]
    assert all(ask(each, "other").get(timeout=30).answer for each in one_of_each("other", tenant="other"))
    assert all(each.get(timeout=60).answer for each in handles)
    assert time.monotonic() - started > 2, "two of them waited for their turns"
    assert endpoint.calls() == 6


def test_another_tenant_s_questions_are_among_the_next_behind_many_of_one_on_each_spine(
    spine_worker, settings_file, endpoint
):
    flood = process_predict().many([{"question": f"flood {number}"} for number in range(FLOOD)], tenant="flood")
    others = [ask(each, "other") for each in one_of_each("other", tenant="other")]
    spine_worker(settings_file({"workers": {"concurrency": 1}}))
    assert all(each.get(timeout=60).answer for each in others)
    assert endpoint.calls() < FLOOD / 2
    assert sum(job.ready() for job in flood[-100:]) == 0
