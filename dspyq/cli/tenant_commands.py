"""``dspyq tenants``: what tenants have spent, their limits, and forgetting them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.cli.budget_commands import limits_from_options, print_limits
from dspyq.cli.costs_commands import account_in_usd, in_usd, print_tenant_days, remaining
from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_table
from dspyq.errors import DspyqError, InvalidOption
from dspyq.prediction.tenants import check_tenant
from dspyq.store.clients import money_client, redis_errors

if TYPE_CHECKING:
    from dspyq.guards.limits import Account, Limits
    from dspyq.guards.tenants import TenantRate, Tenants

app = typer.Typer(
    help="Look after tenants. What is changed here works at once, without a restart.", no_args_is_help=True
)

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name.")]

_NONE = "none"
#: The most days that ``show`` prints.
_DAYS = 31


@app.command("list")
def list_tenants(as_json: JsonOption = False) -> None:
    """List the tenants that ever called a model or have a limit of their own, with today's and this month's spending.

    Example: `dspyq tenants list --json`
    """
    with redis_errors("read the tenants"):
        tenants, limits = _tenants(), _limits()
        names = tenants.names()
        accounts = limits.of_tenants(names)
        rates = tenants.rates(names)
    if as_json:
        print_json([_stated(name, accounts, rates[name]) for name in names])
        return
    rows = [
        [name, account.label, *remaining(account), _rate(rates[name]), "set here" if account.is_override else ""]
        for name in names
        for account in _of(name, accounts)
    ]
    print_table("Tenants", ["tenant", "in", "limit", "settled", "held", "free", "calls/s", ""], rows)


@app.command()
def show(
    tenant: TenantArgument,
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days, today included.")] = _DAYS,
    as_json: JsonOption = False,
) -> None:
    """Show a tenant's limits, what is left of them, and what its calls cost by day.

    Example: `dspyq tenants show acme`
    """
    name = check_tenant(tenant)
    with redis_errors("read the tenant"):
        tenants = _tenants()
        if name not in tenants.names():
            raise DspyqError(f"nothing is kept of a tenant {name!r}: it has called no model, and has no limit")
        accounts = _limits().of_tenants([name])
        rate = tenants.rates([name])[name]
        costs = tenants.costs([name], days=days)
    if as_json:
        print_json(_stated(name, accounts, rate) | {"costs": [in_usd(asdict(line)) for line in costs]})
        return
    rows = [[account.label, *remaining(account), "set here" if account.is_override else ""] for account in accounts]
    print_table(f"Tenant {name}", ["in", "limit", "settled", "held", "free", ""], rows)
    console.print(f"model calls: {_rate(rate)} a second{', set here' if rate.is_override else ''}")
    print_tenant_days(costs, days)


@app.command()
def limit(
    tenant: TenantArgument,
    daily: Annotated[str | None, typer.Option(help="Dollars a day, or none.")] = None,
    monthly: Annotated[str | None, typer.Option(help="Dollars a month, or none.")] = None,
    rate: Annotated[str | None, typer.Option(help="Model calls a second, or none.")] = None,
    burst: Annotated[int, typer.Option(min=1, help="How many of those may begin at once.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Set a tenant's limits in place of the configuration file's, for every worker; `none` goes back to the file's.

    A job that the old limit refused is tried again within five minutes.

    Example: `dspyq tenants limit acme --daily 5 --monthly 100 --rate 20`
    """
    name = check_tenant(tenant)
    if daily is None and monthly is None and rate is None:
        raise InvalidOption("use --daily, --monthly, --rate or several of them")
    amounts = limits_from_options(daily, monthly)
    per_second = None if rate is None else _per_second(rate)
    with redis_errors("set the limits"):
        tenants, limits = _tenants(), _limits()
        for period, amount in amounts.items():
            limits.override(f"tenant:{name}", period, amount)
        if rate is not None:
            tenants.set_rate(name, per_second, burst)
        accounts = limits.of_tenants([name])
        new_rate = tenants.rates([name])[name]
    if as_json:
        print_json(_stated(name, accounts, new_rate))
        return
    print_limits([account for account in accounts if account.period in amounts])
    if rate is not None:
        source = "set here" if new_rate.is_override else "the configuration's"
        console.print(f"rate of tenant:{name}: {_rate(new_rate)} model calls a second ({source})")


@app.command()
def forget(
    tenant: TenantArgument,
    books: Annotated[bool, typer.Option("--books", help="What its calls cost too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not prompt for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete what is kept of a tenant: its cached answers, limits, accounts, and with --books its books.

    Its keys of the HTTP API are revoked first, for good: without its limits they could spend what others may.

    Not reached are its unfinished jobs, logs, files of batches, the totals of `dspyq costs`, and without [encryption]
    results whose answer the cache serves no longer: those end by themselves. `dspyq forget --tenant` deletes content
    alone, and prints what it did not reach.

    Example: `dspyq tenants forget acme --books --yes`
    """
    from dspyq.api_keys.store import ApiKeys
    from dspyq.retention.forgetting import forget_tenant

    name = check_tenant(tenant)
    if not yes:
        typer.confirm(
            f"Delete the cached answers and limits{' and books' if books else ''} of {name}, and revoke its keys?",
            abort=True,
        )
    with redis_errors("revoke the tenant's keys"):
        revoked = ApiKeys(money_client()).revoke_all(name)
    answers = forget_tenant(name).answers
    with redis_errors("forget the tenant"):
        _tenants().forget(name, books=books)
    if as_json:
        print_json({"tenant": name, "answers": answers, "books": books, "revoked_keys": revoked})
        return
    console.print(f"forgotten of {name}: {answers:,} cached answers, its limits{' and its books' if books else ''}")


def _stated(name: str, accounts: list[Account], rate: TenantRate) -> dict[str, Any]:
    return {
        "tenant": name,
        "accounts": [account_in_usd(account) for account in _of(name, accounts)],
        "rate": rate._asdict(),
    }


def _of(name: str, accounts: list[Account]) -> list[Account]:
    return [account for account in accounts if account.scope == f"tenant:{name}"]


def _rate(rate: TenantRate) -> str:
    if rate.requests_per_second is None:
        return "any number"
    return f"{rate.requests_per_second:g}, {rate.burst_requests} at once"


def _per_second(text: str) -> float | None:
    if text == _NONE:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < math.inf:
        raise InvalidOption(f"--rate is a number of model calls a second above 0, or none; not {text!r}")
    return rate


def _tenants() -> Tenants:
    from dspyq.guards.tenants import Tenants

    return Tenants(money_client(), get_settings())


def _limits() -> Limits:
    from dspyq.guards.limits import Limits

    return Limits(money_client(), get_settings())
