"""Parts that the budget's tests share: settings, calls, and a calendar that is set by hand."""

from __future__ import annotations

from dspyq.config.periods import Period, Periods
from dspyq.config.settings import Settings
from dspyq.guards.billing import BilledCall
from dspyq.store.scripts import run_together

PREFIX = "dspy:v1:"
NANO = 10**9
#: Redis's clock is real: a period that holds it, and some that do not.
ALWAYS = (0, 4_000_000_000)
#: A month ends after its days.
ALWAYS_OF_A_MONTH = (0, 4_000_000_001)
PAST = (0, 1)
FUTURE = (4_000_000_000, 4_100_000_000)


class Calendar:
    """Says which day and month it is, whatever Redis's clock."""

    def __init__(self, day="day1", month="month1"):
        self.set(day, month)

    def set(self, day, month):
        self._periods = Periods(_around(day, ALWAYS), _around(month, ALWAYS_OF_A_MONTH))

    def now(self):
        return self._periods

    def at(self, _):
        return self._periods


def _around(label, always):
    return Period(label, *always), Period(f"before {label}", *PAST), Period(f"after {label}", *FUTURE)


def settings(daily_usd=None, monthly_usd=None, *, program=None, variant=None, **tables):
    """Settings with the programs ``qa`` (variants ``a`` and ``b``) and ``other``, and limits for all of them."""
    variants = {"a": {"model": "m", "weight": 0.5, **(variant or {})}, "b": {"model": "n", "weight": 0.5}}
    programs = {
        "qa": {"signature": "question -> answer", "variants": variants, **(program or {})},
        "other": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}},
    }
    models = {name: {"model": f"openai/{name}"} for name in ("m", "n")}
    limits = {"daily_usd": daily_usd, "monthly_usd": monthly_usd}
    return Settings(models=models, programs=programs, budget=tables.pop("budget", {}) | limits, **tables)


def call(number=1, program="qa", variant="a", model="m", batch="", tenant=""):
    return BilledCall(f"task:1:{number}", program, variant, model, batch, tenant=tenant)


def do(client, *steps):
    """Run steps in one round trip and return what the last one returns."""
    return run_together(client, steps)[-1]


def account(redis_server, scope="all", period="daily", label="day1"):
    """The amounts that are settled and held."""
    found = redis_server.client().hmget(f"{PREFIX}budget:{scope}:{period}:{label}", "settled", "held")
    return tuple(int(amount or 0) for amount in found)


def statistics(redis_server):
    return {name: int(number) for name, number in redis_server.client().hgetall(f"{PREFIX}budget-statistics").items()}


def books(redis_server, day="day1", of="qa.a m "):
    found = redis_server.client().hgetall(f"{PREFIX}costs:{day}").items()
    return {name.removeprefix(of): int(number) for name, number in found if name.startswith(of) and number != "0"}


def refused(verdict):
    return verdict.verdict, verdict.scope, verdict.period


def expire(client, budget, *calls):
    """Let the lease of calls run out, and charge them."""
    for each in calls:
        client.zadd(f"{PREFIX}budget:leases", {each.id: 1})
    return budget.sweep()
