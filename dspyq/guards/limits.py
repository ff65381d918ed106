"""Budget limits: the configured ones, those set by an operator in Redis instead, and their remaining amounts."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import redis

from dspyq.config.periods import Calendar, Period, Periods
from dspyq.config.settings import Settings
from dspyq.core.money import to_nano_usd
from dspyq.core.tolerated import read_number, read_text
from dspyq.errors import InvalidOption, UnknownProgram, UnknownVariant
from dspyq.guards.billing import Payer
from dspyq.prediction.tenants import check_tenant
from dspyq.store.keys import key
from dspyq.store.scripts import Step, command_step, read_hash, run_together

PeriodKind = Literal["daily", "monthly"]
PERIOD_KINDS: tuple[PeriodKind, ...] = ("daily", "monthly")
#: The payers of a program's experiment, as people name them.
_PAYERS = {"shadow": "shadow runs", "judge": "score functions"}

#: The hash of limits that an operator has set, by scope and period.
LIMITS = "budget-limits"
#: Longer than a month, and what is kept of an account after its period.
_KEPT_SECONDS = 40 * 86_400


@dataclass(frozen=True, slots=True)
class Account:
    """Budget of one scope in the current day or month.

    Attributes:
        scope: ``all``, ``program:<program>``, ``variant:<program>.<variant>``, ``<payer>:<program>`` or
            ``tenant:<tenant>``.
        period: ``daily`` or ``monthly``.
        label: The day or month.
        limit_nano_usd: Its limit; None for none.
        is_override: True if an operator replaced the configured limit with this one.
        settled_nano_usd: Cost of settled calls.
        held_nano_usd: Highest possible cost of calls in progress.
        refused_nano_usd: Highest possible cost of the cheapest call that it has refused; None for none. Of variants
            and payers.
    """

    scope: str
    period: PeriodKind
    label: str
    limit_nano_usd: int | None
    is_override: bool
    settled_nano_usd: int
    held_nano_usd: int
    refused_nano_usd: int | None = None

    def with_override(self, overrides: Mapping[str, int]) -> Account:
        """Return the account with an operator's limit, if one is set."""
        override = overrides.get(_field(self.scope, self.period))
        return self if override is None else replace(self, limit_nano_usd=override, is_override=True)

    @property
    def is_limited(self) -> bool:
        """Return True if there is a limit."""
        return self.limit_nano_usd is not None

    @property
    def is_used(self) -> bool:
        """Return True if anything was spent or is held."""
        return bool(self.settled_nano_usd or self.held_nano_usd)

    @property
    def is_exhausted(self) -> bool:
        """Return True if it refuses calls that it has refused before, until the period ends."""
        limit, refused = self.limit_nano_usd, self.refused_nano_usd
        return limit is not None and refused is not None and self.settled_nano_usd + refused > limit

    @property
    def free_nano_usd(self) -> int | None:
        """Amount left for further calls, never negative; None without a limit."""
        if self.limit_nano_usd is None:
            return None
        return max(0, self.limit_nano_usd - self.settled_nano_usd - self.held_nano_usd)


class Limits:
    """Operators' view and control of the budgets. Workers need no restart."""

    def __init__(self, client: redis.Redis, settings: Settings, calendar: Calendar | None = None) -> None:
        """Take the client of the jobs' Redis, the settings, and optionally a calendar."""
        self._client = client
        self._settings = settings
        self._stated = _all_limits(settings)
        self._calendar = calendar or Calendar(settings.budget.timezone)

    def accounts(self) -> list[Account]:
        """Return the current accounts of every configured scope, in the configuration's order."""
        return read_accounts(run_together(self._client, self.steps(self._redis_periods())))

    def limited_accounts(self) -> list[Account]:
        """Return the current accounts that have a limit, at a cost that does not grow with the programs without one."""
        set_since = _overrides(self._client.hgetall(key(LIMITS)))
        scopes = frozenset(field.rpartition(" ")[0] for field in set_since)
        accounts = read_accounts(run_together(self._client, self._steps(self._redis_periods(), scopes)))
        return [account for account in accounts if account.is_limited]

    def of_tenants(self, names: Sequence[str]) -> list[Account]:
        """Return the current accounts of tenants, the daily and the monthly one of each."""
        periods = self._redis_periods()
        labels = {"daily": periods.days[0].label, "monthly": periods.months[0].label}
        steps: list[Step[Any]] = [command_step(_overrides, "HGETALL", key(LIMITS))]
        for name in names:
            for (scope, period), stated in tenant_limits(self._settings, name).items():
                steps.append(_account_step(scope, period, labels[period], stated))
        return read_accounts(run_together(self._client, steps))

    def of_scope(self, scope: str) -> list[Account]:
        """Return the current accounts of one scope, a tenant's too."""
        kind, _, name = scope.partition(":")
        if kind == "tenant":
            return self.of_tenants([name])
        return [account for account in self.accounts() if account.scope == scope]

    def steps(
        self, periods: Periods | None = None, *, of: Collection[tuple[str, str]] | None = None
    ) -> list[Step[Any]]:
        """Return steps that read the accounts; ``read_accounts`` makes those of what they return.

        Args:
            periods: The current ones; by this process's clock where left out.
            of: The programs and variants; all where left out. What has a limit in the configuration comes with them.
        """
        return self._steps(periods or self._calendar.now(), None if of is None else _scopes_of(of))

    def override(self, scope: str, period: PeriodKind, limit_nano_usd: int | None) -> None:
        """Set a limit in place of the configured one, for all calls from now on; None restores the configured one."""
        if limit_nano_usd is None:
            self._client.hdel(key(LIMITS), _field(scope, period))
            return
        pipeline = self._client.pipeline()
        pipeline.hset(key(LIMITS), _field(scope, period), str(limit_nano_usd))
        kind, _, name = scope.partition(":")
        if kind == "tenant":
            pipeline.sadd(key("tenants"), name)
        pipeline.execute()

    def reset(self, scope: str, period: PeriodKind) -> None:
        """Reset the spending of a scope in the current period; holds and books stay."""
        label = self._current_periods()[period].label
        account = _key(scope, period, label)
        pipeline = self._client.pipeline()
        pipeline.hset(account, mapping={"settled": "0", "warned": ""})
        pipeline.expire(account, _KEPT_SECONDS, nx=True)  # also where no call has set its end
        pipeline.execute()

    def _steps(self, periods: Periods, wanted: Collection[str] | None) -> list[Step[Any]]:
        current: dict[PeriodKind, str] = {"daily": periods.days[0].label, "monthly": periods.months[0].label}
        return [
            command_step(_overrides, "HGETALL", key(LIMITS)),
            *(
                _account_step(scope, period, current[period], stated)
                for (scope, period), stated in self._stated.items()
                if wanted is None or stated is not None or scope in wanted
            ),
        ]

    def _current_periods(self) -> dict[PeriodKind, Period]:
        """Return the day and the month by Redis's clock, as the guard counts."""
        periods = self._redis_periods()
        return {"daily": periods.days[0], "monthly": periods.months[0]}

    def _redis_periods(self) -> Periods:
        seconds, _ = self._client.time()
        return self._calendar.at(seconds)


def read_accounts(results: Sequence[Any]) -> list[Account]:
    """Return the accounts read by the steps of ``Limits.steps``."""
    overrides, *accounts = results
    return [account.with_override(overrides) for account in accounts]


def scope_of(
    settings: Settings, program: str | None, variant: str | None, *, payer: Payer = "", tenant: str | None = None
) -> str:
    """Return the scope of a program, of one of its variants or payers, of a tenant, or of all calls.

    Raises:
        UnknownProgram: If there is no such program, or a variant without its program.
        UnknownVariant: If it has no such variant.
        InvalidOption: If it has no such payer, or a variant is named too; or a tenant with any of these.
    """
    if tenant is not None:
        if program is not None or variant is not None or payer:
            raise InvalidOption("--tenant goes alone: a tenant's limits are over all programs")
        return tenant_scope(check_tenant(tenant))
    if program is None:
        if variant is not None or payer:
            named = f"--{payer}" if payer else f"variant {variant}"
            raise UnknownProgram(f"{named} needs its program: use --program too")
        return "all"
    if program not in settings.programs:
        raise UnknownProgram(f"there is no program {program!r}; there are {', '.join(settings.programs) or 'none'}")
    if payer:
        if variant is not None or payer_scope(payer, program) not in configured_scopes(settings):
            raise InvalidOption(
                f"--{payer} goes without --variant, and needs the table programs.{program}.experiment.{payer}"
            )
        return payer_scope(payer, program)
    if variant is None:
        return f"program:{program}"
    variants = settings.programs[program].variants
    if variant not in variants:
        raise UnknownVariant(f"program {program} has no variant {variant!r}; it has {', '.join(variants)}")
    return f"variant:{program}.{variant}"


def payer_scope(payer: Payer, program: str) -> str:
    """Return the scope of a payer of a program."""
    return f"{payer}:{program}"


def tenant_scope(tenant: str) -> str:
    """Return the scope of a tenant."""
    return f"tenant:{tenant}"


def tenant_limits(settings: Settings, tenant: str) -> dict[tuple[str, PeriodKind], int | None]:
    """Return the limits that the configuration states for each tenant, in nano-dollars by scope and period."""
    stated_usd = {"daily": settings.tenants.daily_usd, "monthly": settings.tenants.monthly_usd}
    scope = tenant_scope(tenant)
    amounts_usd = {(scope, period): stated_usd[period] for period in PERIOD_KINDS}
    return {of: None if usd is None else to_nano_usd(usd) for of, usd in amounts_usd.items()}


def configured_scopes(settings: Settings) -> frozenset[str]:
    """Return the configured scopes: all calls, and each program and variant."""
    return frozenset(scope for scope, _, _ in _stated_usd(settings))


def describe_scope(scope: str) -> tuple[str, str, str]:
    """Return a scope's name for people, its table in the file, and its options of ``dspyq budget set``."""
    kind, _, name = scope.partition(":")
    if kind == "program":
        return f"program {name}", f"programs.{name}", f" --program {name}"
    if kind == "variant":
        program, _, variant = name.partition(".")
        table = f"programs.{program}.variants.{variant}"
        return f"variant {name}", table, f" --program {program} --variant {variant}"
    if kind in _PAYERS:
        return f"{_PAYERS[kind]} of {name}", f"programs.{name}.experiment.{kind}", f" --program {name} --{kind}"
    if kind == "tenant":
        return f"tenant {name}", "tenants", f" --tenant {name}"
    return "all calls", "budget", ""


def configured_limits(
    settings: Settings, program: str, variant: str, *, payer: Payer = "", tenant: str = ""
) -> dict[tuple[str, PeriodKind], int | None]:
    """Return a call's limits in nano-dollars by scope and period, in the scripts' order; None for no limit."""
    limits = _all_limits(settings)
    own = payer_scope(payer, program) if payer else f"variant:{program}.{variant}"
    scopes = ["all", f"program:{program}", own]
    if tenant:
        limits |= tenant_limits(settings, tenant)
        scopes.append(tenant_scope(tenant))
    return {(scope, period): limits.get((scope, period)) for period in PERIOD_KINDS for scope in scopes}


def _all_limits(settings: Settings) -> dict[tuple[str, PeriodKind], int | None]:
    limits: dict[tuple[str, PeriodKind], int | None] = {}
    for scope, daily_usd, monthly_usd in _stated_usd(settings):
        for period, amount_usd in zip(PERIOD_KINDS, (daily_usd, monthly_usd), strict=True):
            limits[scope, period] = None if amount_usd is None else to_nano_usd(amount_usd)
    return limits


def _scopes_of(variants: Collection[tuple[str, str]]) -> frozenset[str]:
    programs = {f"program:{program}" for program, _ in variants}
    return frozenset({"all", *programs, *(f"variant:{program}.{variant}" for program, variant in variants)})


def _stated_usd(settings: Settings) -> Iterator[tuple[str, float | None, float | None]]:
    yield "all", settings.budget.daily_usd, settings.budget.monthly_usd
    for program in settings.programs.values():
        yield f"program:{program.name}", program.daily_usd, program.monthly_usd
        for variant in program.variants.values():
            yield f"variant:{program.name}.{variant.name}", variant.daily_usd, variant.monthly_usd
        if program.experiment and program.experiment.shadow:
            yield payer_scope("shadow", program.name), program.experiment.shadow.daily_usd, None
        if program.experiment and program.experiment.judge:
            yield payer_scope("judge", program.name), program.experiment.judge.daily_usd, None


def _overrides(reply: Any) -> dict[str, int]:
    return {
        read_text(field): int(read_number(amount)) for field, amount in read_hash(reply).items() if amount.isdigit()
    }


def _account_step(scope: str, period: PeriodKind, label: str, stated: int | None) -> Step[Account]:
    read = functools.partial(_account, scope, period, label, stated)
    return command_step(read, "HMGET", _key(scope, period, label), "settled", "held", "refused")


def _account(scope: str, period: PeriodKind, label: str, stated: int | None, reply: list[bytes | None]) -> Account:
    settled, held = (int(read_number(amount)) for amount in reply[:2])
    return Account(
        scope,
        period,
        label,
        stated,
        is_override=False,
        settled_nano_usd=settled,
        held_nano_usd=held,
        refused_nano_usd=None if reply[2] is None else int(read_number(reply[2])),
    )


def _key(scope: str, period: PeriodKind, label: str) -> str:
    return key(f"budget:{scope}:{period}:{label}")


def _field(scope: str, period: PeriodKind) -> str:
    return f"{scope} {period}"
