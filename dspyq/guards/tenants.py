"""Tenants as operators see them: their limits, rates and books."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple, cast

import redis

from dspyq.config.periods import Calendar
from dspyq.config.settings import Settings
from dspyq.core.tolerated import read_text
from dspyq.guards.limits import LIMITS, PERIOD_KINDS, tenant_scope
from dspyq.store.clients import jobs_client
from dspyq.store.keys import key, month_of, tenant_costs_key, tenant_savings_key
from dspyq.store.spine_sums import sum_hashes
from dspyq.store.spines import each_spine

_SAVINGS = "tenant-savings"


@dataclass(frozen=True, slots=True)
class TenantCosts:
    """One day's total of a tenant's calls.

    Attributes:
        day: The day, by ``budget.timezone``.
        tenant: The tenant.
        calls: Calls that a provider served, or may have.
        prompt_tokens: Tokens sent, as far as the provider counted them.
        completion_tokens: Tokens generated, as far as the provider counted them.
        billed_nano_usd: Total of known costs.
        unknown_calls: Calls of unknown cost.
        unknown_nano_usd: Total of their bounds, which were charged.
        avoided_nano_usd: Cost saved by answers from the cache and from runs that the tenant's other calls began.
    """

    day: str
    tenant: str
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    billed_nano_usd: int = 0
    unknown_calls: int = 0
    unknown_nano_usd: int = 0
    avoided_nano_usd: int = 0


class TenantRate(NamedTuple):
    """The rate of a tenant's model calls.

    Attributes:
        requests_per_second: The most; None for no limit.
        burst_requests: How many of them may begin at once.
        is_override: True if an operator set it in place of the configured one.
    """

    requests_per_second: float | None
    burst_requests: int
    is_override: bool


class Tenants:
    """Operators' view and control of tenants. Workers need no restart.

    Args:
        client: The Redis of jobs.
        settings: The configuration.
        calendar: The days; those of ``budget.timezone`` where left out.
    """

    def __init__(self, client: redis.Redis, settings: Settings, calendar: Calendar | None = None) -> None:
        self._client = client
        self._settings = settings
        self._calendar = calendar or Calendar(settings.budget.timezone)

    def names(self) -> list[str]:
        """Return the tenants that ever called a model, or have a limit that an operator set, by name."""
        return sorted(read_text(name) for name in cast("set[bytes]", self._client.smembers(key("tenants"))))

    def rates(self, names: Sequence[str]) -> dict[str, TenantRate]:
        """Return the rate of each of these tenants."""
        if not names:
            return {}
        found = cast("list[bytes | None]", self._client.hmget(key(LIMITS), [_rate_field(name) for name in names]))
        return {name: self._rate(stated) for name, stated in zip(names, found, strict=True)}

    def set_rate(self, name: str, requests_per_second: float | None, burst_requests: int = 1) -> None:
        """Set a tenant's rate in place of the configured one, from now on; None restores the configured one."""
        pipeline = self._client.pipeline()
        if requests_per_second is None:
            pipeline.hdel(key(LIMITS), _rate_field(name))
        else:
            pipeline.hset(key(LIMITS), _rate_field(name), f"{requests_per_second!r} {burst_requests}")
            pipeline.sadd(key("tenants"), name)
        pipeline.execute()

    def costs(self, names: Sequence[str], *, days: int) -> list[TenantCosts]:
        """Return the costs of tenants in the last days, today included: the latest day first, then by tenant.

        Days without any call are left out. Savings where callers of several tenants shared a run are of none.
        """
        today = date.fromisoformat(self._calendar.now().today)
        labels = {(today - timedelta(days=number)).isoformat() for number in range(days)}
        months = sorted({month_of(label) for label in labels})
        whose = [(name, month) for name in names for month in months]
        is_apart = self._settings.is_money_apart
        pipeline = self._client.pipeline(transaction=False)
        for of_month in whose:
            pipeline.hgetall(tenant_costs_key(*of_month))
        for of_month in whose if not is_apart else ():
            pipeline.hgetall(tenant_savings_key(*of_month))
        replies: list[Any] = pipeline.execute() if whose else []
        if is_apart:
            replies += sum_hashes(lambda: [tenant_savings_key(*of_month) for of_month in whose])
        read = zip([name for name, _ in whose], replies[: len(whose)], replies[len(whose) :], strict=True)
        found = [costs for of_month in read for costs in _days(*of_month) if costs.day in labels]
        found.sort(key=lambda costs: costs.tenant)
        return sorted(found, key=lambda costs: costs.day, reverse=True)

    def forget(self, name: str, *, books: bool) -> None:
        """Delete a tenant's limits, rate and accounts; its books too where asked.

        Calls under way settle as ever, and so may write anew what they cost.
        """
        pipeline = self._client.pipeline()
        fields = [f"{tenant_scope(name)} {period}" for period in PERIOD_KINDS]
        pipeline.hdel(key(LIMITS), *fields, _rate_field(name))
        pipeline.srem(key("tenants"), name)
        kinds = ["tenant-costs"] if self._settings.is_money_apart else ["tenant-costs", _SAVINGS]
        starts = [f"budget:{tenant_scope(name)}:", *(f"{kind}:{name}:" for kind in kinds if books)]
        found = self._beginning(self._client, starts)
        pipeline.delete(key("tenant-rate:") + name, *found)
        pipeline.execute()
        if books and self._settings.is_money_apart:
            for _ in each_spine():
                if saved := self._beginning(jobs_client(), [f"{_SAVINGS}:{name}:"]):
                    jobs_client().delete(*saved)

    @staticmethod
    def _beginning(client: redis.Redis, starts: Iterable[str]) -> list[bytes]:
        return [each for start in starts for each in client.scan_iter(f"{key(start)}*", count=1000)]

    def _rate(self, stated: bytes | None) -> TenantRate:
        configured = self._settings.tenants
        if stated is None:
            return TenantRate(configured.requests_per_second, configured.burst_requests, is_override=False)
        rate, _, burst = read_text(stated).partition(" ")
        return TenantRate(float(rate), int(burst), is_override=True)


def _days(tenant: str, book: Any, savings: Any) -> Iterable[TenantCosts]:
    """Read a tenant's books of a month, as scripts write them: ``<day> <program>.<variant> <model> <counter>``.

    Its savings are one field for each day.
    """
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for field, amount in book.items():
        day, *_, counter = field.decode().split(" ")
        totals[day][counter] += int(amount)
    for day, amount in savings.items():
        totals[day.decode()]["avoided_nano_usd"] += int(amount)
    return [TenantCosts(day, tenant, **counters) for day, counters in totals.items()]


def _rate_field(name: str) -> str:
    return f"{tenant_scope(name)} rate"
