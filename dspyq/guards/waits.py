"""Reasons for which a prediction is not answered yet, including guards."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

import redis

from dspyq.config.settings import get_settings
from dspyq.core.tolerated import read_text
from dspyq.delivery.waits import PARKED, why_it_waits
from dspyq.guards.breaker_state import BreakerPolicy, FleetBreaker
from dspyq.guards.killed import KilledArms
from dspyq.guards.limits import Account, Limits
from dspyq.guards.provider_gate import ProviderGate
from dspyq.guards.rate_limit import RateLimitPolicy
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.keys import job_key
from dspyq.store.scripts import run_together
from dspyq.store.spines import on_spine


def reason(task_id: str) -> str:
    """Return the reason for a job's wait, in words. Callers need it when an error has occurred, so it never raises."""
    try:
        with on_spine(task_id):
            queue, why = why_it_waits(jobs_client(), get_settings(), task_id)
        if why in {"", PARKED}:
            with on_spine(task_id):
                tenant = read_text(cast("bytes | None", jobs_client().hget(job_key(task_id), "tenant")) or b"")
            guard = guard_that_holds(queue, is_parked=why == PARKED, tenant=tenant)
            why = _killed_arm(queue) or (guard and guard.text) or why
    except redis.RedisError as error:
        return f"unknown: Redis does not answer ({type(error).__name__})"
    return why or f"it waits for its turn in {queue}: its workers are busy"


def _limit_of(tenant: str) -> HoldingGuard | None:
    """Return the limit of a tenant that is used up; None if none is."""
    accounts = Limits(money_client(), get_settings()).of_tenants([tenant])
    used_up = ", ".join(account.period for account in accounts if _is_used_up(account))
    text = f"a limit of tenant {tenant} is used up ({used_up}): dspyq tenants show {tenant}"
    return HoldingGuard("budget", text) if used_up else None


def _is_used_up(account: Account) -> bool:
    return account.free_nano_usd == 0


def _killed_arm(queue: str) -> str:
    if queue not in KilledArms(money_client()):
        return ""
    return f"the arm {queue} was killed; a worker that serves its control too answers: dspyq experiment log"


class HoldingGuard(NamedTuple):
    """A guard that blocks calls of a queue's model.

    Attributes:
        name: ``breaker``, ``rate_limit`` or ``budget``.
        text: The reason, in words.
    """

    name: Literal["breaker", "rate_limit", "budget"]
    text: str


def guard_that_holds(queue: str, *, is_parked: bool, tenant: str = "") -> HoldingGuard | None:
    """Return the guard that blocks calls of a queue's model, or of a tenant; None if none is known to.

    Args:
        queue: The queue.
        is_parked: Whether the job that waits is delayed, not in its queue.
        tenant: The job's tenant; empty for none.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    return (_limit_of(tenant) if tenant else None) or _guard_of(queue, is_parked=is_parked)


def _guard_of(queue: str, *, is_parked: bool) -> HoldingGuard | None:
    settings = get_settings()
    program_name, _, variant_name = queue.partition(".")
    program = settings.programs.get(program_name)
    variant = program.variants.get(variant_name) if program else None
    if variant is None:
        return None
    model = variant.model
    (breaker,) = run_together(
        money_client(), [FleetBreaker(money_client(), model.name, BreakerPolicy.of(settings, model)).look()]
    )
    if breaker.name != "closed":
        return HoldingGuard("breaker", f"the circuit breaker of {model.name} is {breaker.name}: dspyq breaker show")
    policy = RateLimitPolicy.of(settings, model)
    gate = ProviderGate(money_client(), model.name, policy.gate).read()
    if gate.reason:
        text = f"the gate of {model.name} is closed for {gate.closed_seconds:.0f} s ({gate.reason}): dspyq breaker show"
        return HoldingGuard("rate_limit", text)
    scopes = {"all", f"program:{program_name}", f"variant:{queue}"}
    accounts = Limits(money_client(), settings).accounts()
    used_up = [f"{each.scope} {each.period}" for each in accounts if each.scope in scopes and _is_used_up(each)]
    if used_up:
        return HoldingGuard("budget", f"a budget is used up ({', '.join(used_up)}): dspyq budget show")
    if is_parked and (policy.requests_per_second or policy.tokens_per_minute):
        return HoldingGuard("rate_limit", f"the rate limit of {model.name} has no turn for it yet: dspyq breaker show")
    return None
