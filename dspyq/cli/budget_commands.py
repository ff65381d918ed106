"""``dspyq budget``: spending limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dspyq.cli.costs_commands import account_in_usd, remaining
from dspyq.config.models import LARGEST_LIMIT_USD
from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_table
from dspyq.core.money import exact_dollars, to_nano_usd
from dspyq.errors import InvalidOption
from dspyq.prediction.tenants import check_tenant
from dspyq.store.clients import money_client, redis_errors

if TYPE_CHECKING:
    from dspyq.guards.billing import Payer
    from dspyq.guards.limits import Account, Limits, PeriodKind

app = typer.Typer(
    help="Look after budgets. What is changed here works at once, without a restart.", no_args_is_help=True
)

OfProgram = Annotated[str | None, typer.Option("--program", help="A program's limit, not that of all calls.")]
OfVariant = Annotated[str | None, typer.Option("--variant", help="That of one of its variants.")]
OfShadow = Annotated[bool, typer.Option("--shadow", help="That of its shadow runs.")]
OfJudge = Annotated[bool, typer.Option("--judge", help="That of its score functions that call a model.")]
OfTenant = Annotated[str | None, typer.Option("--tenant", help="A tenant's limit, not that of all calls.")]

_NONE = "none"


@app.command()
def show(tenant: OfTenant = None, as_json: JsonOption = False) -> None:
    """Show limits, settled and held amounts, and the rest, of the current day and month.

    Example: `dspyq budget show --json`
    """
    with redis_errors("read the budgets"):
        accounts = _limits().accounts() if tenant is None else _limits().of_tenants([check_tenant(tenant)])
    if as_json:
        print_json([account_in_usd(account) for account in accounts])
        return
    rows = []
    for account in accounts:
        if account.scope == "all" or account.is_limited or account.is_used:
            source = "set here" if account.is_override else ""
            rows.append([account.scope, account.label, *remaining(account), source])
    print_table("Budgets", ["of", "in", "limit", "settled", "held", "free", ""], rows)


@app.command("set")
def set_limits(
    daily: Annotated[str | None, typer.Option(help="Dollars a day, or none.")] = None,
    monthly: Annotated[str | None, typer.Option(help="Dollars a month, or none.")] = None,
    program: OfProgram = None,
    variant: OfVariant = None,
    shadow: OfShadow = False,
    judge: OfJudge = False,
    tenant: OfTenant = None,
    as_json: JsonOption = False,
) -> None:
    """Set limits in place of the configuration file's, for every worker; `none` goes back to the file's.

    Example: `dspyq budget set --daily 20 --program qa`

    Example: `dspyq budget set --daily none --monthly none`
    """
    from dspyq.guards.limits import scope_of

    amounts = limits_from_options(daily, monthly)
    if not amounts:
        raise InvalidOption("use --daily, --monthly or both")
    scope = scope_of(get_settings(), program, variant, payer=_payer(shadow=shadow, judge=judge), tenant=tenant)
    with redis_errors("set the limits"):
        limits = _limits()
        for period, amount in amounts.items():
            limits.override(scope, period, amount)
        changed = [each for each in limits.of_scope(scope) if each.period in amounts]
    if as_json:
        print_json([account_in_usd(account) for account in changed])
        return
    print_limits(changed)


@app.command()
def reset(
    daily: Annotated[bool, typer.Option("--daily", help="The day's alone.")] = False,
    monthly: Annotated[bool, typer.Option("--monthly", help="The month's alone.")] = False,
    program: OfProgram = None,
    variant: OfVariant = None,
    shadow: OfShadow = False,
    judge: OfJudge = False,
    tenant: OfTenant = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not prompt for confirmation.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Reset the spending of the current day and month, so that the whole limit is free again.

    The books of `dspyq costs` and the holds of calls in progress stay.

    Example: `dspyq budget reset --daily --program qa`
    """
    from dspyq.guards.limits import scope_of

    scope = scope_of(get_settings(), program, variant, payer=_payer(shadow=shadow, judge=judge), tenant=tenant)
    meant: dict[PeriodKind, bool] = {"daily": daily, "monthly": monthly}
    with redis_errors("read the budgets"):
        limits = _limits()
        spent = [each for each in limits.of_scope(scope) if meant[each.period] or not any(meant.values())]
    if not yes:
        amounts = " and ".join(f"{exact_dollars(account.settled_nano_usd)} of {account.label}" for account in spent)
        typer.confirm(f"Forget that {scope} has spent {amounts}?", abort=True)
    with redis_errors("reset the budgets"):
        for account in spent:
            limits.reset(scope, account.period)
    if as_json:
        print_json([account_in_usd(account) for account in spent])
        return
    for account in spent:
        console.print(f"{account.label}: {exact_dollars(account.settled_nano_usd)} forgotten of {scope}")


def limits_from_options(daily: str | None, monthly: str | None) -> dict[PeriodKind, int | None]:
    """Return the limits that options state, in nano-dollars; None for ``none``.

    Raises:
        InvalidOption: If one is no amount of dollars.
    """
    stated: dict[PeriodKind, str | None] = {"daily": daily, "monthly": monthly}
    return {period: _nano_usd(period, text) for period, text in stated.items() if text is not None}


def print_limits(changed: list[Account]) -> None:
    """Print limits that were changed."""
    for account in changed:
        limit = "none" if account.limit_nano_usd is None else exact_dollars(account.limit_nano_usd)
        source = "set here" if account.is_override else "the configuration's"
        console.print(f"{account.period} limit of {account.scope}: {limit} ({source})")


def _limits() -> Limits:
    from dspyq.guards.limits import Limits

    return Limits(money_client(), get_settings())


def _payer(*, shadow: bool, judge: bool) -> Payer:
    if shadow and judge:
        raise InvalidOption("--shadow and --judge are two accounts: change one after the other")
    return "shadow" if shadow else "judge" if judge else ""


def _nano_usd(period: str, text: str) -> int | None:
    if text == _NONE:
        return None
    try:
        amount_usd = float(text)
    except ValueError:
        amount_usd = -1.0
    if not 0 <= amount_usd <= LARGEST_LIMIT_USD:
        raise InvalidOption(f"--{period} is dollars from 0 to {LARGEST_LIMIT_USD:,}, or none; not {text!r}")
    return to_nano_usd(amount_usd)
