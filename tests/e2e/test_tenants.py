"""Tenants with real workers: isolated answers, limits that stop nobody else, rates, shared answers and books."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from dspyq.cache.memory import process_cache
from dspyq.client.spread_bulk import process_bulk
from dspyq.config.settings import get_settings
from dspyq.errors import TenantLimitReached
from dspyq.guards.costs import read_costs
from dspyq.guards.limits import Limits
from dspyq.guards.tenants import Tenants
from dspyq.guards.waits import reason
from dspyq.prediction.request import build_request
from dspyq.store.clients import jobs_client
from tests.support.processes import eventually, wait_until

NANO = 10**9


def ask(predict: Any, question: str, tenant: str | None = None, **options: Any) -> Any:
    return predict.apply_async(kwargs={"question": question}, tenant=tenant, **options)


def limit(tenant: str, daily_usd: float | None) -> None:
    amount = None if daily_usd is None else round(daily_usd * NANO)
    Limits(jobs_client(), get_settings()).override(f"tenant:{tenant}", "daily", amount)


def spend(tenant: str, usd: float) -> None:
    """Let a tenant have spent so much today, of a limit of a dollar."""
    limit(tenant, 1.0)
    (daily, _) = Limits(jobs_client(), get_settings()).of_tenants([tenant])
    jobs_client().hset(f"dspy:v1:budget:tenant:{tenant}:daily:{daily.label}", "settled", str(round(usd * NANO)))


@pytest.mark.usefixtures("shared_worker")
def test_a_tenant_is_served_no_answer_of_another(predict: Any, endpoint: Any) -> None:
    answers = [ask(predict, "q", tenant).get(timeout=30) for tenant in ("a", "b", None)]
    assert endpoint.calls() == 3
    assert not any(answer.metadata.cached for answer in answers)
    again = [ask(predict, "q", tenant).get(timeout=30) for tenant in ("a", "b", None)]
    assert all(answer.metadata.cached for answer in again)
    assert endpoint.calls() == 3


@pytest.mark.usefixtures("shared_worker")
def test_calls_of_one_tenant_join_one_run_in_every_form_of_the_call(predict: Any, endpoint: Any) -> None:
    endpoint.hold()
    jobs = [ask(predict, "q", "a"), *predict.many([{"question": "q"}, {"question": "q"}], tenant="a")]
    jobs.append(ask(predict, "q", "a", countdown=0))
    endpoint.wait_for_calls(1)
    endpoint.release()
    assert {job.get(timeout=30).answer for job in jobs} == {jobs[0].get().answer}
    assert endpoint.calls() == 1


def test_a_tenant_at_its_limit_waits_and_stops_no_other(
    predict: Any, worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    only = worker(settings_file({"workers": {"concurrency": 1}}))
    spend("full", 1.0)
    calls = endpoint.calls()
    refused = ask(predict, "of full", "full")
    wait_until(lambda: jobs_client().zscore("dspy:v1:delayed", refused.id) is not None, 20, "it to be postponed")
    others = [ask(predict, "of other", "other"), ask(predict, "of none")]
    assert all(job.get(timeout=30).answer for job in others)
    assert endpoint.calls() == calls + 2
    assert "queue_paused" not in only.logs()
    assert "a limit of tenant full is used up (daily): dspyq tenants show full" in reason(refused.id)
    limit("full", 2.0)
    assert refused.get(timeout=60).answer


def test_where_jobs_do_not_wait_a_tenant_at_its_limit_gets_an_error_that_names_it(
    configure: Callable[..., Any], worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    path = settings_file({"programs": {"qa": {"when_unavailable": "fail"}}})
    configure(path)
    from dspyq import predict

    worker(path)
    spend("full", 1.0)
    calls = endpoint.calls()
    with pytest.raises(TenantLimitReached, match="the daily limit of tenant full, ") as raised:
        ask(predict, "of full", "full").get(timeout=30)
    assert raised.value.retryable
    assert endpoint.calls() == calls
    assert ask(predict, "of other", "other").get(timeout=30).answer


def test_50_calls_at_once_at_a_tenant_s_limit_cost_no_more_than_it(
    predict: Any, worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    worker(settings_file({"workers": {"concurrency": 16}}))
    limits = Limits(jobs_client(), get_settings())
    limit("small", 1.0)
    endpoint.hold()
    first = ask(predict, "first", "small")
    endpoint.wait_for_calls(1)
    bound = limits.of_tenants(["small"])[0].held_nano_usd
    endpoint.release()
    first.get(timeout=30)
    eventually(lambda: limits.of_tenants(["small"])[0].held_nano_usd == 0)
    cost = limits.of_tenants(["small"])[0].settled_nano_usd
    assert 0 < cost < bound
    most = bound + 6 * cost
    limits.override("tenant:small", "daily", most)
    predict.many([{"question": f"q{number}"} for number in range(50)], tenant="small")
    assert ask(predict, "of other", "other").get(timeout=60).answer
    seen = []

    def is_used_up() -> bool:
        seen.append(limits.of_tenants(["small"])[0])
        return seen[-1].settled_nano_usd + bound > most

    wait_until(is_used_up, 60, "the limit to be used up")
    assert max(each.settled_nano_usd + each.held_nano_usd for each in seen) <= most
    eventually(lambda: limits.of_tenants(["small"])[0].held_nano_usd == 0)
    spent = limits.of_tenants(["small"])[0].settled_nano_usd
    assert most - bound < spent <= most
    assert Tenants(jobs_client(), get_settings()).costs(["small"], days=2)[0].billed_nano_usd == spent


def test_a_tenant_beyond_its_rate_is_postponed_while_others_are_answered(
    predict: Any, worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    only = worker(settings_file({"workers": {"concurrency": 1}}))
    Tenants(jobs_client(), get_settings()).set_rate("slow", 0.5)
    slow = predict.many([{"question": f"slow {number}"} for number in range(3)], tenant="slow")
    started = time.monotonic()
    assert ask(predict, "of other", "other").get(timeout=30).answer
    assert all(job.get(timeout=60).answer for job in slow)
    assert time.monotonic() - started > 2  # two of them waited for their turns
    assert endpoint.calls() == 4
    assert "queue_paused" not in only.logs()


def test_another_tenant_s_question_is_among_the_next_behind_many_of_one(
    predict: Any, worker: Callable[..., Any], settings_file: Callable[..., Any], endpoint: Any
) -> None:
    flood = predict.many([{"question": f"flood {number}"} for number in range(2_000)], tenant="flood")
    other, own = ask(predict, "of other", "other"), ask(predict, "of none")
    worker(settings_file({"workers": {"concurrency": 1}}))
    assert other.get(timeout=60).answer
    assert own.get(timeout=60).answer
    assert endpoint.calls() < 200
    assert sum(job.ready() for job in flood[-100:]) == 0


@pytest.fixture
def shared(configure: Callable[..., Any], settings_file: Callable[..., Any]) -> Any:
    """A configuration whose program shares its answers."""
    path = settings_file({"programs": {"qa": {"share": "everyone"}}})
    configure(path)
    return path


def test_tenants_that_share_answers_share_runs_and_who_asked_first_pays(
    shared: Any, worker: Callable[..., Any], endpoint: Any
) -> None:
    from dspyq import predict

    worker(shared)
    endpoint.hold()
    jobs = [ask(predict, "q", "a"), ask(predict, "q", "b"), ask(predict, "q")]
    endpoint.wait_for_calls(1)
    endpoint.release()
    assert len({job.get(timeout=30).answer for job in jobs}) == 1
    assert endpoint.calls() == 1
    eventually(lambda: Tenants(jobs_client(), get_settings()).costs(["a", "b"], days=2))
    assert [each.tenant for each in Tenants(jobs_client(), get_settings()).costs(["a", "b"], days=2)] == ["a"]


@pytest.mark.parametrize("other", ["b", None])
def test_who_waits_for_an_answer_that_a_tenant_at_its_limit_asked_for_gets_it_at_the_expense_of_neither(
    other: str | None, shared: Any, worker: Callable[..., Any]
) -> None:
    from dspyq import predict

    worker(shared)
    spend("full", 1.0)
    refused = ask(predict, "q", "full")
    joined = ask(predict, "q", other)
    assert joined.id == refused.id
    assert joined.get(timeout=60).answer == refused.get(timeout=60).answer
    assert not Tenants(jobs_client(), get_settings()).costs(["full", "b"], days=2)


def test_a_tenant_that_asks_twice_does_not_pass_its_limit_where_answers_are_shared(
    shared: Any, worker: Callable[..., Any], endpoint: Any
) -> None:
    from dspyq import predict

    worker(shared)
    spend("full", 1.0)
    calls = endpoint.calls()
    jobs = [ask(predict, "q", "full"), *predict.many([{"question": "q"}, {"question": "q"}], tenant="full")]
    wait_until(lambda: jobs_client().zscore("dspy:v1:delayed", jobs[0].id) is not None, 20, "it to be postponed")
    eventually(lambda: int(jobs_client().hget(f"dspy:v1:job:{jobs[0].id}", "runs") or 0) > 1)
    assert endpoint.calls() == calls


@pytest.mark.usefixtures("shared_worker")
def test_what_is_forgotten_of_a_tenant_are_its_answers_alone(predict: Any, endpoint: Any, dspyq: Any) -> None:
    jobs = [ask(predict, "q", tenant) for tenant in ("a", "b", None)]
    later = ask(predict, "asked for later", "a", countdown=0)  # its worker claims it
    for job in (*jobs, later):
        job.get(timeout=30)
    told = json.loads(dspyq("tenants", "forget", "a", "--yes", "--json").stdout)
    assert (told["tenant"], told["answers"], told["books"]) == ("a", 2, False)
    assert not jobs_client().exists(f"celery-task-meta-{jobs[0].id}", f"celery-task-meta-{later.id}")
    calls = endpoint.calls()
    wait_until(lambda: ask(predict, "q", "a").id != jobs[0].id, 60, "this process to have forgotten it")
    assert [ask(predict, "q", tenant).id for tenant in ("b", None)] == [job.id for job in jobs[1:]]
    assert ask(predict, "q", "a").get(timeout=30).answer
    assert endpoint.calls() == calls + 1


@pytest.mark.usefixtures("shared_worker")
def test_an_answer_of_one_tenant_is_invalidated_alone(predict: Any, dspyq: Any) -> None:
    jobs = [ask(predict, "q", tenant) for tenant in ("a", None)]
    for job in jobs:
        job.get(timeout=30)
    assert json.loads(dspyq("cache", "invalidate", "question=q", "--tenant", "a", "--json").stdout) == {"forgotten": 1}
    wait_until(lambda: ask(predict, "q", "a").id != jobs[0].id, 60, "this process to have forgotten it")
    assert ask(predict, "q").id == jobs[1].id


@pytest.mark.parametrize("are_named", [False, True])
def test_logs_and_metrics_name_tenants_only_where_that_is_set(
    are_named: bool, predict: Any, worker: Callable[..., Any], settings_file: Callable[..., Any]
) -> None:
    path = settings_file({"tenants": {"are_named": are_named}, "metrics": {"port": 0}})
    its_worker = worker(path)
    spend("secretive", 0.6)
    ask(predict, "q", "secretive").get(timeout=30)
    wait_until(lambda: "budget_threshold" in its_worker.logs(), 20, "the limit to be crossed")
    assert ("secretive" in its_worker.logs()) is are_named


@pytest.mark.usefixtures("shared_worker")
def test_what_every_kind_of_hit_saved_is_booked_for_the_tenant_that_asked(predict: Any, endpoint: Any) -> None:
    tenants = Tenants(jobs_client(), get_settings())

    def saved(name: str) -> int:
        return sum(line.avoided_nano_usd for line in tenants.costs([name], days=2))

    ask(predict, "saved", "acme").get(timeout=30)
    eventually(lambda: tenants.costs(["acme"], days=2)[0].billed_nano_usd > 0)
    cost = tenants.costs(["acme"], days=2)[0].billed_nano_usd
    ask(predict, "saved", "acme").get(timeout=30)  # from memory
    eventually(lambda: saved("acme") == cost)
    for number, from_redis in enumerate((
        lambda: ask(predict, "saved", "acme").get(timeout=30),
        lambda: predict.many([{"question": "saved"}], tenant="acme")[0].get(timeout=30),
        lambda: process_bulk().peek([build_request({"question": "saved"}, tenant="acme")]),
    ), start=2):  # fmt: skip
        process_cache().memory.clear()
        from_redis()
        assert saved("acme") == number * cost
    endpoint.hold()
    joined = [ask(predict, "joins", "acme") for _ in range(3)]
    endpoint.release()
    for job in joined:
        job.get(timeout=30)
    eventually(lambda: saved("acme") > 4 * cost)
    (acme,) = tenants.costs(["acme"], days=2)
    assert acme.avoided_nano_usd == 4 * cost + 2 * (acme.billed_nano_usd - cost)
    of_all = read_costs(jobs_client(), get_settings(), days=2)
    assert acme.avoided_nano_usd == sum(line.avoided_nano_usd for line in of_all)
    assert saved("other") == 0
    tenants.forget("acme", books=True)
    assert saved("acme") == 0
