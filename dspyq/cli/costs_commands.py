"""``dspyq costs``: the cost of model calls, and the remaining budgets."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dspyq.batch.account import BatchAccount
from dspyq.config.settings import get_settings
from dspyq.console.output import JsonOption, console, print_json, print_table
from dspyq.core.money import exact_dollars, to_usd
from dspyq.errors import InvalidOption
from dspyq.store.clients import money_client, redis_errors

if TYPE_CHECKING:
    from dspyq.guards.costs import Costs
    from dspyq.guards.limits import Account
    from dspyq.guards.tenants import TenantCosts

_NANO = "_nano_usd"


class By(StrEnum):
    """Ways to add up costs."""

    TENANT = "tenant"


def costs(
    days: Annotated[int, typer.Option(min=1, max=400, help="How many days, today included.")] = 7,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the days' lines as CSV.")] = False,
    batch: Annotated[str, typer.Option(help="Show what this batch cost instead, by its id.")] = "",
    by: Annotated[By | None, typer.Option(help="Add up by tenant and day instead.")] = None,
) -> None:
    """Show the cost of calls by day, program, variant and model, the cache's savings, and the rest of each limit.

    Unknown is the highest possible cost of calls without a known cost: timeouts, cut connections, workers that died.

    Example: `dspyq costs --days 30 --csv > costs.csv`
    """
    from dspyq.guards.costs import Costs, read_costs
    from dspyq.guards.limits import Limits

    if as_json and as_csv:
        raise InvalidOption("use --json or --csv, not both")
    if batch:
        if as_csv:
            raise InvalidOption("a batch's costs are printed as a table or with --json")
        _show_batch(batch, as_json=as_json)
        return
    if by is not None:
        if as_csv:
            raise InvalidOption("tenants' costs are printed as a table or with --json")
        _show_tenants(days, as_json=as_json)
        return
    settings = get_settings()
    with redis_errors("read the costs"):
        lines = read_costs(money_client(), settings, days=days)
        accounts = Limits(money_client(), settings).accounts()
    limited = [account for account in accounts if account.is_limited]
    if as_json:
        limits = [account_in_usd(account) for account in limited]
        print_json({"costs": [in_usd(asdict(line)) for line in lines], "limits": limits})
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, list(in_usd(asdict(Costs("", "", "", "")))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(in_usd(asdict(line)) for line in lines)
    else:
        _print_lines(lines, days)
        _print_limits(limited)


def _show_tenants(days: int, *, as_json: bool) -> None:
    from dspyq.guards.tenants import Tenants

    with redis_errors("read the costs of tenants"):
        tenants = Tenants(money_client(), get_settings())
        lines = tenants.costs(tenants.names(), days=days)
    if as_json:
        print_json({"costs": [in_usd(asdict(line)) for line in lines]})
        return
    print_tenant_days(lines, days)


def print_tenant_days(lines: list[TenantCosts], days: int) -> None:
    """Print what tenants' calls cost by day."""
    if not lines:
        console.print(f"No model was called for a tenant in the last {days} days.")
        return
    rows = [
        [
            line.day,
            line.tenant,
            *(f"{count:,}" for count in (line.calls, line.prompt_tokens, line.completion_tokens)),
            *map(exact_dollars, (line.billed_nano_usd, line.unknown_nano_usd, line.avoided_nano_usd)),
        ]
        for line in lines
    ]
    print_table(
        "Costs of tenants", ["day", "tenant", "calls", "tokens in", "out", "billed", "unknown", "avoided"], rows
    )


def _show_batch(batch_id: str, *, as_json: bool) -> None:
    account = BatchAccount(money_client(), batch_id)
    with redis_errors("read the costs of the batch"):
        if not account.exists():
            raise InvalidOption(f"there is no batch {batch_id}, or none that spent anything in the last 400 days")
        books, calls = account.statement()
    if as_json:
        print_json(in_usd(asdict(books)) | {"calls_on_no_row": [in_usd(asdict(call)) for call in calls]})
        return
    limit = "–" if books.max_nano_usd is None else exact_dollars(books.max_nano_usd)
    counts = [f"{count:,}" for count in (books.calls, books.prompt_tokens, books.completion_tokens)]
    amounts = [exact_dollars(amount) for amount in (books.billed_nano_usd, books.unknown_nano_usd, books.held_nano_usd)]
    columns = ["calls", "tokens in", "out", "billed", "unknown", "held", "limit"]
    print_table(f"Batch {batch_id}", columns, [[*counts, *amounts, limit]])
    if calls:
        rows = [
            [call.call_id, call.state, exact_dollars(call.charged_nano_usd or call.bound_nano_usd)] for call in calls
        ]
        print_table("Calls on no row", ["call", "state", "at most"], rows)


def account_in_usd(account: Account) -> dict[str, Any]:
    """Return an account for machines, its amounts in dollars."""
    return in_usd(asdict(account) | {"free_nano_usd": account.free_nano_usd})


def remaining(account: Account) -> list[str]:
    """Return the cells of an account: limit, settled, held and free."""
    limit = "–" if account.limit_nano_usd is None else exact_dollars(account.limit_nano_usd)
    free = "–" if account.free_nano_usd is None else exact_dollars(account.free_nano_usd)
    return [limit, exact_dollars(account.settled_nano_usd), exact_dollars(account.held_nano_usd), free]


def in_usd(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields for machines, their amounts in dollars."""
    return {
        name.replace(_NANO, "_usd"): to_usd(value) if name.endswith(_NANO) and value is not None else value
        for name, value in fields.items()
    }


def _print_lines(lines: list[Costs], days: int) -> None:
    if not lines:
        console.print(f"No model was called in the last {days} days.")
        return
    rows = [[line.day, f"{line.program}.{line.variant}", line.model or "–", *_amounts([line])] for line in lines]
    if len(rows) > 1:
        rows.append(["total", "", "", *_amounts(lines)])
    columns = ["day", "variant", "model", "calls", "tokens in", "out", "billed", "unknown", "avoided"]
    print_table("Costs", columns, rows)


def _amounts(lines: list[Costs]) -> list[str]:
    counts = [sum(getattr(line, name) for line in lines) for name in ("calls", "prompt_tokens", "completion_tokens")]
    amounts = [
        sum(getattr(line, name) for line in lines)
        for name in ("billed_nano_usd", "unknown_nano_usd", "avoided_nano_usd")
    ]
    return [*(f"{count:,}" for count in counts), *map(exact_dollars, amounts)]


def _print_limits(limited: list[Account]) -> None:
    if not limited:
        return
    rows = [[account.scope, account.label, *remaining(account)] for account in limited]
    print_table("Limits", ["of", "in", "limit", "settled", "held", "free"], rows)
