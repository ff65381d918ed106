"""``GET /v1/usage``: calls, tokens and costs by day, and what is left of the limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.client.off_loop import off_loop
from dspyq.config.periods import process_calendar
from dspyq.config.settings import get_settings
from dspyq.core.money import to_usd
from dspyq.errors import InvalidOption
from dspyq.guards.costs import Costs, read_costs
from dspyq.guards.limits import Account, Limits
from dspyq.guards.tenants import TenantCosts, Tenants
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import exchange_of
from dspyq.store.clients import money_client, redis_errors

#: Days that the books are kept, and those that are shown where the request names no first one.
_MOST_DAYS, _USUAL_DAYS = 400, 31
_COUNTS = ("calls", "prompt_tokens", "completion_tokens")
_AMOUNTS = ("billed_nano_usd", "unknown_nano_usd", "avoided_nano_usd")

_COUNT: Final = {"type": "integer", "minimum": 0}
_USD: Final = {"type": "number"}
_DATE: Final = {"type": "string", "format": "date"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


USAGE_SCHEMA: Final = _object(**{
    "object": {"const": "usage"},
    "tenant": {"type": ["string", "null"]},
    "from": _DATE,
    "to": _DATE,
    "days": {
        "type": "array",
        "items": _object(
            date=_DATE, calls=_COUNT, prompt_tokens=_COUNT, completion_tokens=_COUNT, billed_usd=_USD, unknown_usd=_USD,
            avoided_usd=_USD,
        ),
    },
    "limits": {
        "type": "array",
        "items": _object(
            scope={"type": "string"}, period={"enum": ["daily", "monthly"]}, limit_usd=_USD, settled_usd=_USD,
            held_usd=_USD, left_usd=_USD,
        ),
    },
})  # fmt: skip


class _Days(NamedTuple):
    first: date
    last: date
    today: date

    @property
    def back(self) -> int:
        """Number of days from the first one to today."""
        return (self.today - self.first).days + 1


class ShowUsage:
    """The endpoint: a tenant's own usage, or that of all calls where there are no keys."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        caller = await recognized(exchange, "usage")
        days = _read_days(scope["query_string"])
        await exchange.reply_json(200, await off_loop(_usage, caller.tenant, days))


def _read_days(query: bytes) -> _Days:
    """Return the days that a request is about.

    Raises:
        InvalidOption: If it names what is no day.
    """
    stated = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    today = date.fromisoformat(process_calendar().now().today)
    last = _day(stated, "to", today)
    first = _day(stated, "from", last - timedelta(days=_USUAL_DAYS - 1))
    earliest = today - timedelta(days=_MOST_DAYS - 1)
    return _Days(max(first, earliest), max(min(last, today), earliest), today)


def _day(stated: dict[str, list[str]], name: str, default: date) -> date:
    if name not in stated:
        return default
    try:
        return date.fromisoformat(stated[name][-1])
    except ValueError:
        raise InvalidOption(f"{name} is a day, as in 2026-11-30") from None


def _usage(tenant: str, days: _Days) -> dict[str, Any]:
    """Return what was used, in two round trips.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    settings, client = get_settings(), money_client()
    lines: list[Costs] | list[TenantCosts]
    with redis_errors("read the usage"):
        limits = Limits(client, settings)
        if tenant:
            lines = Tenants(client, settings).costs([tenant], days=days.back)
            accounts = limits.of_tenants([tenant])
        else:
            lines = read_costs(client, settings, days=days.back)
            accounts = limits.limited_accounts()
    return {
        "object": "usage",
        "tenant": tenant or None,
        "from": days.first.isoformat(),
        "to": days.last.isoformat(),
        "days": _by_day(lines, days),
        "limits": [_limit(account) for account in accounts if account.limit_nano_usd is not None],
    }


def _by_day(lines: Iterable[Costs | TenantCosts], days: _Days) -> list[dict[str, Any]]:
    """Return the total of each day with any, the earliest first."""
    totals: dict[str, Counter[str]] = {}
    for line in lines:
        total = totals.setdefault(line.day, Counter())
        for name in (*_COUNTS, *_AMOUNTS):
            total[name] += getattr(line, name)
    return [
        {
            "date": day,
            **{name: total[name] for name in _COUNTS},
            "billed_usd": to_usd(total["billed_nano_usd"]),
            "unknown_usd": to_usd(total["unknown_nano_usd"]),
            "avoided_usd": to_usd(total["avoided_nano_usd"]),
        }
        for day, total in sorted(totals.items())
        if days.first.isoformat() <= day <= days.last.isoformat()
    ]


def _limit(account: Account) -> dict[str, Any]:
    return {
        "scope": account.scope,
        "period": account.period,
        "limit_usd": to_usd(account.limit_nano_usd or 0),
        "settled_usd": to_usd(account.settled_nano_usd),
        "held_usd": to_usd(account.held_nano_usd),
        "left_usd": to_usd(max(0, account.free_nano_usd or 0)),
    }


ROUTES = [Route("/v1/usage", ShowUsage(), methods=["GET"])]
