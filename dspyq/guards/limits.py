"""Limits of budgets: the configured ones, those an operator set in Redis in their place, and what is left of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import redis

from dspyq.config.periods import Calendar, Period, Periods
from dspyq.config.settings import Settings
from dspyq.core.money import to_nano_usd
from dspyq.errors import UnknownProgram, UnknownVariant
from dspyq.store.clients import KEY_PREFIX
from dspyq.store.scripts import Step, command_step, run_together

PeriodKind = Literal["daily", "monthly"]
PERIOD_KINDS: tuple[PeriodKind, ...] = ("daily", "monthly")

_ACCOUNT_PREFIX = f"{KEY_PREFIX}budget:"
_LIMITS = f"{KEY_PREFIX}budget-limits"


@dataclass(frozen=True, slots=True)
class Account:
    """What one scope may still spend in the current day or month.

    Attributes:
        scope: ``all``, ``program:<program>`` or ``variant:<program>.<variant>``.
        period: Whether it is the day's or the month's.
        label: Which day or month.
        limit_nano_usd: Its limit; None for none.
        is_override: Whether an operator set that limit in place of the configured one.
        settled_nano_usd: What calls cost.
        held_nano_usd: What calls under way may cost at most.
    """

    scope: str
    period: PeriodKind
    label: str
    limit_nano_usd: int | None
    is_override: bool
    settled_nano_usd: int
    held_nano_usd: int

    def with_override(self, overrides: Mapping[str, int]) -> Account:
        """Return it with the limit that an operator has set, where one has."""
        override = overrides.get(_field(self.scope, self.period))
        return self if override is None else replace(self, limit_nano_usd=override, is_override=True)

    @property
    def is_limited(self) -> bool:
        """Whether it has a limit."""
        return self.limit_nano_usd is not None

    @property
    def is_used(self) -> bool:
        """Whether anything was spent or is held."""
        return bool(self.settled_nano_usd or self.held_nano_usd)

    @property
    def free_nano_usd(self) -> int | None:
        """What further calls may cost, never less than nothing; None without a limit."""
        if self.limit_nano_usd is None:
            return None
        return max(0, self.limit_nano_usd - self.settled_nano_usd - self.held_nano_usd)


class Limits:
    """An operator's hand on the budgets. Workers need no restart."""

    def __init__(self, client: redis.Redis, settings: Settings, calendar: Calendar | None = None) -> None:
        """Take the client of the jobs' Redis, the settings, and the calendar where it is another."""
        self._client = client
        self._settings = settings
        self._calendar = calendar or Calendar(settings.budget.timezone)

    def accounts(self) -> list[Account]:
        """Return the current accounts of every configured scope, in the configuration's order."""
        return read_accounts(run_together(self._client, self.steps(self._redis_periods())))

    def steps(self, periods: Periods | None = None) -> list[Step[Any]]:
        """Return steps that read the accounts; ``read_accounts`` makes those of what they return.

        Args:
            periods: The current ones; by this process's clock where left out.
        """
        periods = periods or self._calendar.now()
        current: dict[PeriodKind, str] = {"daily": periods.days[0].label, "monthly": periods.months[0].label}
        return [
            command_step(_overrides, "HGETALL", _LIMITS),
            *(
                command_step(
                    functools.partial(_account, scope, period, current[period], stated),
                    *("HMGET", _key(scope, period, current[period]), "settled", "held"),
                )
                for (scope, period), stated in _all_limits(self._settings).items()
            ),
        ]

    def override(self, scope: str, period: PeriodKind, limit_nano_usd: int | None) -> None:
        """Set a limit in place of the configured one, for all calls from now on; None takes it away again."""
        if limit_nano_usd is None:
            self._client.hdel(_LIMITS, _field(scope, period))
        else:
            self._client.hset(_LIMITS, _field(scope, period), str(limit_nano_usd))

    def reset(self, scope: str, period: PeriodKind) -> None:
        """Forget what a scope has spent in the current period; what is held, and the books, stay."""
        label = self._current_periods()[period].label
        self._client.hset(_key(scope, period, label), mapping={"settled": "0", "warned": ""})

    def _current_periods(self) -> dict[PeriodKind, Period]:
        """The day and the month by Redis's clock, as the guard counts."""
        periods = self._redis_periods()
        return {"daily": periods.days[0], "monthly": periods.months[0]}

    def _redis_periods(self) -> Periods:
        seconds, _ = self._client.time()
        return self._calendar.at(seconds)


def read_accounts(results: Sequence[Any]) -> list[Account]:
    """Return the accounts that the steps of ``Limits.steps`` have read."""
    overrides, *accounts = results
    return [account.with_override(overrides) for account in accounts]


def scope_of(settings: Settings, program: str | None, variant: str | None) -> str:
    """Return the scope of a program, of one of its variants, or of all calls.

    Raises:
        UnknownProgram: If there is no such program, or a variant without its program.
        UnknownVariant: If it has no such variant.
    """
    if program is None:
        if variant is not None:
            raise UnknownProgram(f"whose variant is {variant}? Say --program too")
        return "all"
    if program not in settings.programs:
        raise UnknownProgram(f"there is no program {program!r}; there are {', '.join(settings.programs) or 'none'}")
    if variant is None:
        return f"program:{program}"
    variants = settings.programs[program].variants
    if variant not in variants:
        raise UnknownVariant(f"program {program} has no variant {variant!r}; it has {', '.join(variants)}")
    return f"variant:{program}.{variant}"


def describe_scope(scope: str) -> tuple[str, str, str]:
    """Return a scope as people call it, its table in the file, and its options of ``dspyq budget set``."""
    kind, _, name = scope.partition(":")
    if kind == "program":
        return f"program {name}", f"programs.{name}", f" --program {name}"
    if kind == "variant":
        program, _, variant = name.partition(".")
        table = f"programs.{program}.variants.{variant}"
        return f"variant {name}", table, f" --program {program} --variant {variant}"
    return "all calls", "budget", ""


def configured_limits(settings: Settings, program: str, variant: str) -> dict[tuple[str, PeriodKind], int | None]:
    """Return a call's limits in nano-dollars by scope and period, in the scripts' order; None for no limit."""
    limits = _all_limits(settings)
    scopes = ("all", f"program:{program}", f"variant:{program}.{variant}")
    return {(scope, period): limits.get((scope, period)) for period in PERIOD_KINDS for scope in scopes}


def _all_limits(settings: Settings) -> dict[tuple[str, PeriodKind], int | None]:
    limits: dict[tuple[str, PeriodKind], int | None] = {}
    for scope, daily_usd, monthly_usd in _stated_usd(settings):
        for period, amount_usd in zip(PERIOD_KINDS, (daily_usd, monthly_usd), strict=True):
            limits[scope, period] = None if amount_usd is None else to_nano_usd(amount_usd)
    return limits


def _stated_usd(settings: Settings) -> Iterator[tuple[str, float | None, float | None]]:
    yield "all", settings.budget.daily_usd, settings.budget.monthly_usd
    for program in settings.programs.values():
        yield f"program:{program.name}", program.daily_usd, program.monthly_usd
        for variant in program.variants.values():
            yield f"variant:{program.name}.{variant.name}", variant.daily_usd, variant.monthly_usd


def _overrides(reply: dict[bytes, bytes]) -> dict[str, int]:
    return {field.decode(): int(amount) for field, amount in reply.items()}


def _account(scope: str, period: PeriodKind, label: str, stated: int | None, reply: list[bytes | None]) -> Account:
    settled, held = (int(amount or 0) for amount in reply)
    return Account(scope, period, label, stated, is_override=False, settled_nano_usd=settled, held_nano_usd=held)


def _key(scope: str, period: PeriodKind, label: str) -> str:
    return f"{_ACCOUNT_PREFIX}{scope}:{period}:{label}"


def _field(scope: str, period: PeriodKind) -> str:
    return f"{scope} {period}"
