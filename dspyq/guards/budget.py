"""The budget guard: no call is made unless the most it may cost is held first, and each is charged what it did cost.

A call is held, made, and settled; or released where it cost nothing. It counts in three scopes, each with a daily and a
monthly account: all calls, its program's and its variant's. An account without a limit is counted all the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import redis

from dspyq.config.periods import Calendar, Period, Periods
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.core.money import dollars, to_usd
from dspyq.errors import BatchLimitReached, BatchShareUsed, BudgetExceeded, Unavailable
from dspyq.guards import metrics
from dspyq.guards.limits import PeriodKind, configured_limits, describe_scope
from dspyq.store.scripts import Step, load_script

logger = logging.getLogger("dspyq.budget")

#: What a hold outlives its call by: answering takes a moment, and a frozen worker may come back.
_GRACE_SECONDS = 30.0
#: The most expired holds one script charges, so that Redis serves others in between.
_MOST_AT_ONCE = 200
#: Redis's scripts count in doubles, which are exact up to here.
_LARGEST_NANO_USD = 2**53

Verdict = Literal["held", "busy", "exhausted", "never", "batch_busy", "batch_limit", "batch_share", "batch_closed"]
_Arguments = tuple[str | int, ...]


class BilledCall(NamedTuple):
    """One attempt to call a model.

    Attributes:
        id: ``<task id>:<fence>:<variant>:<number>``; no other attempt has it.
        program: The program that calls.
        variant: Its variant.
        model: The model's table in the configuration.
        batch: The id of the batch that pays for it; empty where none does.
    """

    id: str
    program: str
    variant: str
    model: str
    batch: str = ""


class Bill(NamedTuple):
    """What a call cost.

    Attributes:
        nano_usd: The amount; None where it is unknown: then the call is charged its bound.
        prompt_tokens: Tokens sent, as the provider counted them; 0 where it did not say.
        completion_tokens: Tokens generated; 0 where the provider did not say.
    """

    nano_usd: int | None
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class HoldVerdict:
    """Whether a call may be made, and if not, which limit stands in its way.

    Attributes:
        verdict: ``held``: it may; ``busy``: not while other calls hold so much; ``exhausted``: not before the period
            ends or the limit is raised; ``never``: it may cost more than the whole limit. Of its batch's own limits,
            ``batch_busy``: not while other calls of the batch hold so much; ``batch_limit``: not before that is raised;
            ``batch_share``: not before there is more to share; ``batch_closed``: not before the batch is run again.
        wait_seconds: For ``exhausted`` and ``batch_share``, when the period ends; else 0.
        scope: ``all``, ``program:<program>``, ``variant:<program>.<variant>`` or ``batch:<id>``; empty where it may be
            made.
        period: The limit's period; of no meaning for a batch's.
        limit_nano_usd: The limit; 0 where the call may be made.
    """

    verdict: Verdict
    wait_seconds: float = 0.0
    scope: str = ""
    period: PeriodKind = "daily"
    limit_nano_usd: int = 0

    @property
    def is_held(self) -> bool:
        """Whether the call may be made."""
        return self.verdict == "held"

    def error(self) -> BudgetExceeded:
        """Return what a caller is told who does not want to wait, of any limit but a batch's."""
        owner, table, options = describe_scope(self.scope)
        limit = f"the {self.period} limit of {owner}, {dollars(self.limit_nano_usd)}"
        reason = {
            "busy": f"calls under way may use up what is left of {limit}",
            "exhausted": f"{limit}, is used up",
            "never": f"this call may cost more than {limit}: lower its model's max_tokens",
        }[self.verdict]
        return BudgetExceeded(
            f"{reason}; raise {table}.{self.period}_usd, or at once: dspyq budget set --{self.period} USD{options}"
        )

    def batch_error(self) -> BatchLimitReached | BatchShareUsed:
        """Return what a batch is told that may not spend so much."""
        batch = self.scope.replace(":", " ")
        limit = dollars(self.limit_nano_usd)
        if self.verdict == "batch_share":
            error = BatchShareUsed(
                f"this call may cost more than {batch} has left of its share of today's budget, {limit}; it goes on "
                "when there is more: tomorrow, or with a larger --budget-share or budget.daily_usd"
            )
            error.retry_after_seconds = self.wait_seconds
            return error
        if self.verdict == "batch_closed":
            return BatchLimitReached(f"{batch} has no account, so nothing says what it may spend; run it again")
        return BatchLimitReached(
            f"this call may cost more than {batch} has left of its --max-usd, {limit}; run it again with a higher one"
        )


@dataclass(frozen=True, slots=True)
class Crossing:
    """A limit that a call has used up to a percentage.

    Attributes:
        scope: Whose limit.
        period: The limit's period.
        percentage: 50, 80 or 100.
        settled_nano_usd: What is settled now.
        limit_nano_usd: The limit.
    """

    scope: str
    period: PeriodKind
    percentage: int
    settled_nano_usd: int
    limit_nano_usd: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """What settling a call did.

    Attributes:
        found: ``held``: its hold; ``expired``: its lease had run out and its bound was charged, which the bill has
            replaced; ``nothing``: no hold, as where Redis lost its data: the bill is charged to the current periods;
            ``settled``: it was settled before, nothing is changed; ``clock``: nothing is charged, for there was no hold
            and this process's clock is wrong.
        charged_nano_usd: What was charged for the call in all.
        held_nano_usd: What was held for it.
        crossings: The limits it has used up to a percentage for the first time.
    """

    found: Literal["held", "expired", "nothing", "settled", "clock"]
    charged_nano_usd: int
    held_nano_usd: int
    crossings: tuple[Crossing, ...] = ()

    @property
    def is_above_hold(self) -> bool:
        """Whether the call cost more than was held for it."""
        return self.found in {"held", "expired"} and self.charged_nano_usd > self.held_nano_usd


class Budget:
    """Every budget of the configuration, shared by all workers through Redis."""

    def __init__(self, client: redis.Redis, settings: Settings, calendar: Calendar | None = None) -> None:
        """Load the scripts; Redis is not asked yet.

        Args:
            client: Of the jobs' Redis.
            settings: The limits, which an operator may have replaced in Redis, and the timezone.
            calendar: The days and months to choose from; those of ``budget.timezone`` where left out.
        """
        self._client = client
        self._settings = settings
        self._calendar = calendar or Calendar(settings.budget.timezone)
        self._hold, self._settle, self._release, self._charge_expired = (
            load_script(client, "dspyq.guards", name, library="accounts")
            for name in ("hold", "settle", "release", "charge_expired")
        )
        self._is_limited: dict[tuple[str, str, str], bool] = {}
        self._callers: dict[tuple[str, str, str], _Arguments] = {}
        self._periods: tuple[Periods | None, _Arguments] = (None, ())

    def hold(self, call: BilledCall, bound_nano_usd: int, *, lease_seconds: float | None = None) -> Step[HoldVerdict]:
        """Hold the most that a call may cost, if every limit allows it.

        Args:
            call: The call. Holding it twice holds it once.
            bound_nano_usd: The most it may cost.
            lease_seconds: When the bound is charged if nobody settles; left out, what the longest wait for a rate limit
                and the model's timeout leave room for.

        Raises:
            Unavailable: When the reply is read, if this process's clock and Redis's are days apart.
        """
        lease = self._lease_seconds(call) if lease_seconds is None else lease_seconds
        return self._ask(call.id, call, bound_nano_usd, lease)

    def look(self, call: BilledCall, bound_nano_usd: int) -> Step[HoldVerdict]:
        """Return what holding the call would, and hold nothing."""
        return self._ask("", call, bound_nano_usd, 0)

    def is_limited(self, call: BilledCall) -> bool:
        """Whether any limit holds for a call, as far as is known here: configured, or set by an operator."""
        limits = configured_limits(self._settings, call.program, call.variant).values()
        # A batch that is not known here may have any limit.
        known = self._is_limited.get((call.program, call.variant, call.batch), bool(call.batch))
        return known or any(limit is not None for limit in limits)

    def settle(self, call: BilledCall, bill: Bill) -> Step[Settlement]:
        """Charge a call what it cost and free the rest of its hold; also in a Redis that is out of memory."""
        amount = "" if bill.nano_usd is None else _checked(bill.nano_usd)
        arguments = (call.id, amount, bill.prompt_tokens, bill.completion_tokens, *self._arguments(call))

        def read(reply: list[bytes]) -> Settlement:
            settlement = _settlement(reply)
            _report(call, settlement)
            return settlement

        return self._settle.step(read, args=arguments)

    def release(self, call: BilledCall) -> Step[None]:
        """Free the hold of a call that was never sent, or cost nothing by rule; also in a Redis out of memory."""
        return self._release.step(_nothing, args=(call.id,))

    def sweep(self) -> int:
        """Charge calls whose lease ran out their bound, as unknown; return how many. Any worker may, at any time."""
        charged = 0
        while True:
            number: int = self._charge_expired(args=(_MOST_AT_ONCE,))
            charged += number
            if number < _MOST_AT_ONCE:
                break
        if charged:
            logger.warning(Event("calls_charged_at_bound", calls=charged, reason="no worker has settled them"))
        return charged

    def _ask(self, call_id: str, call: BilledCall, bound_nano_usd: int, lease_seconds: float) -> Step[HoldVerdict]:
        arguments = (call_id, _checked(bound_nano_usd), lease_seconds, *self._arguments(call))

        def read(reply: list[bytes]) -> HoldVerdict:
            verdict = _verdict(reply)
            if limit := reply[-1]:
                self._is_limited[call.program, call.variant, call.batch] = not verdict.is_held or limit != b"0"
            return verdict

        return self._hold.step(read, args=arguments)

    def _lease_seconds(self, call: BilledCall) -> float:
        model = self._settings.models.get(call.model)
        timeout_seconds = model.timeout_seconds if model else 0.0
        return self._settings.rate_limit.longest_wait_seconds + timeout_seconds + _GRACE_SECONDS

    def _arguments(self, call: BilledCall) -> _Arguments:
        """What the scripts' ``read_call`` takes; the parts are kept, for they rarely change."""
        caller = call.program, call.variant, call.model
        if (stated := self._callers.get(caller)) is None:
            limits = configured_limits(self._settings, call.program, call.variant).values()
            stated = self._callers[caller] = (*caller, *("" if limit is None else limit for limit in limits))
        periods = self._calendar.now()
        computed, arguments = self._periods
        if computed is not periods:
            arguments = tuple(part for period in (*periods.days, *periods.months) for part in _parts(period))
            self._periods = periods, arguments
        return (*stated, *arguments, call.batch) if call.batch else stated + arguments


def _parts(period: Period) -> _Arguments:
    return period.label, period.starts_at, period.ends_at


def _checked(nano_usd: int) -> int:
    if not 0 <= nano_usd <= _LARGEST_NANO_USD:
        raise ValueError(f"{nano_usd} nano-dollars: a call costs from 0 to {_LARGEST_NANO_USD}")
    return nano_usd


def _verdict(reply: list[bytes]) -> HoldVerdict:
    verdict, wait, scope, period, limit = (part.decode() for part in reply)
    if verdict == "clock":
        raise Unavailable(
            f"this machine's clock is wrong: no day or month near it holds Redis's {float(wait):.0f} (seconds since "
            "1970); set both clocks by NTP"
        )
    if verdict == "held":
        return HoldVerdict("held")
    return HoldVerdict(cast("Verdict", verdict), float(wait), scope, cast("PeriodKind", period), int(limit))


def _settlement(reply: list[bytes]) -> Settlement:
    found, charged, held, *crossed = (part.decode() for part in reply)
    crossings = tuple(
        Crossing(scope, cast("PeriodKind", period), int(percentage), int(settled), int(limit))
        for scope, period, percentage, settled, limit in zip(*[iter(crossed)] * 5, strict=True)
    )
    return Settlement(cast("Any", found), int(charged), int(held), crossings)


def _nothing(_: Any) -> None:
    return None


def _report(call: BilledCall, settlement: Settlement) -> None:
    """Log what an operator should know of; the scripts have counted it."""
    for crossing in settlement.crossings:
        metrics.BUDGET_WARNINGS.labels(crossing.scope, crossing.period, str(crossing.percentage)).inc()
        logger.warning(
            Event(
                "budget_threshold",
                scope=describe_scope(crossing.scope)[0],
                period=crossing.period,
                percentage=crossing.percentage,
                spent_usd=to_usd(crossing.settled_nano_usd),
                limit_usd=to_usd(crossing.limit_nano_usd),
            )
        )
    if settlement.is_above_hold:
        logger.warning(
            Event(
                "call_above_its_hold",
                call_id=call.id,
                model=call.model,
                cost_usd=to_usd(settlement.charged_nano_usd),
                held_usd=to_usd(settlement.held_nano_usd),
                advice=f"state its dearest prices, or raise models.{call.model}.prompt_overhead_tokens",
            )
        )
    if settlement.found == "nothing":
        logger.warning(Event("call_without_hold", call_id=call.id, reason="Redis has lost its data"))
    if settlement.found == "clock":
        reason = "it had no hold, and this machine's clock is wrong; set it by NTP"
        logger.error(Event("call_not_charged", call_id=call.id, reason=reason))
