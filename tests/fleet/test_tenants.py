"""A deploy of tenants: workers that have none beside workers that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dspyq.config.settings import get_settings
from dspyq.guards.billing import BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.limits import Limits
from dspyq.guards.tenants import Tenants
from dspyq.store.clients import jobs_client
from dspyq.store.keys import key
from tests.support.budgets import do
from tests.support.processes import eventually, wait_until
from tests.support.worker import Worker

BOUND = 1_000_000


@pytest.fixture
def worker_without_tenants(worker: Callable[..., Any], settings_file: Callable[..., Any]) -> Worker:
    """A worker of a version that has no tenants, ready."""
    started: Worker = worker(settings_file({"workers": {"imports": ["tests.support.worker_without_tenants"]}}))
    return started


def daily(tenant: str) -> tuple[int, int]:
    """The amounts that a tenant has spent today, and that its calls hold."""
    account, _ = Limits(jobs_client(), get_settings()).of_tenants([tenant])
    return account.settled_nano_usd, account.held_nano_usd


@pytest.mark.journey
def test_a_worker_without_tenants_hands_their_jobs_back_and_answers_others(
    worker_without_tenants: Worker, predict: Any, worker: Callable[..., Any], endpoint: Any
) -> None:
    Limits(jobs_client(), get_settings()).override("tenant:acme", "daily", 10**9)
    jobs = [predict.apply_async(kwargs={"question": f"q{number}"}, tenant="acme") for number in range(3)]
    assert predict.delay(question="of none").get(timeout=60).answer
    wait_until(lambda: "do not know tenant" in worker_without_tenants.logs(), 30, "it to hand the jobs back")
    assert endpoint.calls() == 1
    worker()
    assert all(job.get(timeout=90).answer for job in jobs)
    assert endpoint.calls() == 4
    eventually(lambda: daily("acme")[1] == 0)
    (costs,) = Tenants(jobs_client(), get_settings()).costs(["acme"], days=1)
    assert costs.calls == 3
    assert costs.billed_nano_usd == daily("acme")[0] > 0
    assert not jobs_client().exists(key("budget:tenant-leases"), key("budget:leases"))


def test_the_sweeps_of_0_1_leave_the_holds_of_tenants_to_workers_that_have_them(
    configured: Any, old_worker: Worker
) -> None:
    del old_worker  # it sweeps each second
    client = jobs_client()
    budget = Budget(client, configured)
    Limits(client, configured).override("tenant:acme", "daily", 10 * BOUND)
    Limits(client, configured).override("all", "daily", 10 * BOUND)
    dead = [BilledCall("of-acme:1:1", "qa", "control", "control", tenant="acme")]
    dead.append(BilledCall("of-none:1:1", "qa", "control", "control"))
    assert all(do(client, budget.hold(call, BOUND)).is_held for call in dead)
    client.zadd(key("budget:tenant-leases"), {dead[0].id: 1})
    client.zadd(key("budget:leases"), {dead[1].id: 1})
    wait_until(lambda: not client.exists(key("budget:leases")), 30, "the old worker to charge the other call")
    assert daily("acme") == (0, BOUND)
    assert budget.sweep() == 1
    assert daily("acme") == (BOUND, 0)
    of_all = [each for each in Limits(client, configured).accounts() if (each.scope, each.period) == ("all", "daily")]
    assert [(each.settled_nano_usd, each.held_nano_usd) for each in of_all] == [(2 * BOUND, 0)]
