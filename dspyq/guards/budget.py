"""The budget guard: each call's highest possible cost is held before the call, and its actual cost charged after it.

A call is held, made, and settled; or released where it cost nothing. It counts in three scopes, each with a daily and a
monthly account: all calls, its program's and its variant's, or its payer's; a tenant's call in its tenant's too.
Accounts without a limit are counted too.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import redis

from dspyq.config.periods import Calendar, Period, Periods
from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.errors import Unavailable
from dspyq.guards.billing import Bill, BilledCall
from dspyq.guards.limits import PeriodKind, configured_limits
from dspyq.guards.settlements import Settlement, read_settlement, report
from dspyq.store.scripts import Step, load_script

logger = logging.getLogger("dspyq.budget")

#: Extra lifetime of a hold beyond its call: storing the answer takes time, and a frozen worker may recover.
_GRACE_SECONDS = 30.0
#: The most expired holds one script charges, so that Redis serves others in between.
_MOST_AT_ONCE = 200
#: Most batches and tenants whose limits a process remembers; it treats others as limited.
_MOST_SPECIAL = 1_000
#: Calls with limits of their own that no configuration states: program, variant, batch and tenant.
_Special = tuple[str, str, str, str]
#: Lua numbers are doubles, exact up to here.
_LARGEST_NANO_USD = 2**53

HoldDecision = Literal[
    "held", "busy", "exhausted", "never", "killed", "batch_busy", "batch_limit", "batch_share", "batch_closed",
    "tenant_busy", "tenant_limit", "tenant_rate",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class HoldVerdict:
    """Verdict on holding a call's cost: it may be made, or which limit blocks it.

    Attributes:
        verdict: ``held``: it may; ``busy``: not while other calls hold so much; ``exhausted``: not before the period
            ends or the limit is raised; ``never``: it may cost more than the whole limit; ``killed``: not at all, its
            variant is a killed arm of an experiment. Of its batch's own limits,
            ``batch_busy``: not while other calls of the batch hold so much; ``batch_limit``: not before that is raised;
            ``batch_share``: not before there is more to share; ``batch_closed``: not before the batch is run again.
            Of its tenant's alone, ``tenant_busy``: not while other calls of the tenant hold so much;
            ``tenant_limit``: as ``exhausted``; ``tenant_rate``: not before its turn.
        wait_seconds: For ``exhausted``, ``tenant_limit`` and ``batch_share``, when the period ends; for
            ``tenant_rate``, when to ask again; else 0.
        scope: ``all``, ``program:<program>``, ``variant:<program>.<variant>``, ``<payer>:<program>``,
            ``tenant:<tenant>`` or ``batch:<id>``; empty where it may be made.
        period: The limit's period; of no meaning for a batch's, and for a rate.
        limit_nano_usd: The limit; 0 where the call may be made.
    """

    verdict: HoldDecision
    wait_seconds: float = 0.0
    scope: str = ""
    period: PeriodKind = "daily"
    limit_nano_usd: int = 0

    @property
    def is_held(self) -> bool:
        """Return True if the call may be made."""
        return self.verdict == "held"


class LaneTerms(NamedTuple):
    """Terms of a call in a lane, which is held for hours; of any other call as they are left out.

    Attributes:
        row_calls: Of a batch's row that is to begin, how many calls it needs: there must be money for all of them, and
            for what the batch's rows under way still need.
        day_share: The most of what a day's limit has left that calls may hold together; None for all of it.
    """

    row_calls: int = 1
    day_share: float | None = None


_NO_LANE = LaneTerms()
_HELD = HoldVerdict("held")
_KILLED = HoldVerdict("killed")


class Budget:
    """Every budget of the configuration, shared by all workers through Redis.

    Attributes:
        client: Of the Redis of money.
    """

    def __init__(self, client: redis.Redis, settings: Settings, calendar: Calendar | None = None) -> None:
        """Load the scripts, without a call of Redis.

        Args:
            client: Of the Redis of money.
            settings: The limits, which an operator may have replaced in Redis, and the timezone.
            calendar: The days and months to choose from; those of ``budget.timezone`` where left out.
        """
        self.client = client
        self._settings = settings
        self._calendar = calendar or Calendar(settings.budget.timezone)
        self._hold, self._settle, self._release, self._charge_expired = (
            load_script(client, "dspyq.guards", name) for name in ("hold", "settle", "release", "charge_expired")
        )
        self._renew = load_script(client, "dspyq.guards", "renew_holds")
        self._is_limited: dict[tuple[str, str, str], bool] = {}
        self._is_special_limited: OrderedDict[_Special, bool] = OrderedDict()
        self._callers: dict[tuple[str, str, str, str, bool], dict[str, Any]] = {}
        self._periods: tuple[Periods | None, dict[str, Any]] = (None, {})

    def hold(
        self,
        call: BilledCall,
        bound_nano_usd: int,
        *,
        lease_seconds: float | None = None,
        lane: LaneTerms = _NO_LANE,
    ) -> Step[HoldVerdict]:
        """Hold a call's cost bound, if every limit allows it.

        Args:
            call: The call. Holding it twice holds it once.
            bound_nano_usd: The most it may cost.
            lease_seconds: Time after which an unsettled bound is charged; left out, enough for the longest wait
                for a rate limit and the model's timeout.
            lane: Terms of a call in a lane.

        Raises:
            Unavailable: When the reply is read, if this process's clock and Redis's are days apart.
        """
        lease = self._lease_seconds(call) if lease_seconds is None else lease_seconds
        return self._ask(call.id, call, bound_nano_usd, lease, lane)

    def peek(self, call: BilledCall, bound_nano_usd: int, *, lane: LaneTerms = _NO_LANE) -> Step[HoldVerdict]:
        """Return the verdict of ``hold`` without holding anything."""
        return self._ask("", call, bound_nano_usd, 0, lane)

    def is_limited(self, call: BilledCall) -> bool:
        """Return True if any limit known to this process applies to a call: configured, or set by an operator."""
        if call.batch or call.tenant:  # an unknown batch or tenant may have any limit
            known = self._is_special_limited.get(_special(call), True)
        else:
            known = self._is_limited.get((call.program, call.variant, call.payer), False)
        return known or any(limit is not None for limit in self._configured(call))

    def settle(self, call: BilledCall, bill: Bill, *, only_held: bool = False) -> Step[Settlement]:
        """Charge a call's cost and free the rest of its hold; this works in a Redis out of memory too.

        Args:
            call: The call.
            bill: Its bill.
            only_held: Whether a call that has no hold is not charged: at any later repetition nothing is changed.
        """
        amount = "" if bill.nano_usd is None else _checked(bill.nano_usd)

        def read(reply: list[bytes]) -> Settlement:
            settlement = read_settlement(reply)
            report(call, settlement, names_tenants=self._settings.tenants.are_named)
            return settlement

        return self._settle.step(
            read,
            id=call.id,
            bill=amount,
            prompt_tokens=bill.prompt_tokens,
            completion_tokens=bill.completion_tokens,
            **({"only_held": "1"} if only_held else {}),
            **self._limits_of(call),
        )

    def release(self, call: BilledCall) -> Step[None]:
        """Free the hold of a call that was never sent or is free by rule; this works in a Redis out of memory too."""
        return self._release.step(_nothing, id=call.id)

    def take_back(self, call: BilledCall) -> Step[None]:
        """Free the hold of a call that was never sent and may be held again under its id, as of a line in a lane."""
        return self._release.step(_nothing, id=call.id, may_be_held_again="1")

    def renew(self, ids: Sequence[str], lease_seconds: float) -> Step[int]:
        """Renew the leases of calls that are held for longer than one lease.

        The step returns how many are held, or were charged their bounds as their leases had run out.
        """
        return self._renew.step(int, lease_seconds=lease_seconds, ids=ids)

    def sweep(self) -> int:
        """Charge the bounds of calls whose lease expired, as unknown; return their number. Any worker may do this."""
        charged = 0
        while True:
            number: int = self._charge_expired(limit=_MOST_AT_ONCE)
            charged += number
            if number < _MOST_AT_ONCE:
                break
        if charged:
            logger.warning(Event("calls_charged_at_bound", calls=charged, reason="no worker has settled them"))
        return charged

    def _ask(
        self,
        call_id: str,
        call: BilledCall,
        bound_nano_usd: int,
        lease_seconds: float,
        lane: LaneTerms,
    ) -> Step[HoldVerdict]:
        bound = _checked(bound_nano_usd)

        def read(reply: list[bytes]) -> HoldVerdict:
            verdict = _verdict(reply)
            if limit := reply[-1]:
                self._note(call, is_limited=not verdict.is_held or limit != b"0")
            return verdict

        limits = self._limits_of(call)
        if lane.row_calls > 1:
            limits["row_calls"] = lane.row_calls
        if lane.day_share is not None:
            limits["lane_share"] = lane.day_share
        return self._hold.step(read, id=call_id, bound=bound, lease_seconds=lease_seconds, **limits)

    def _note(self, call: BilledCall, *, is_limited: bool) -> None:
        """Remember if a call is limited; of batches and tenants, only the latest."""
        if not (call.batch or call.tenant):
            self._is_limited[call.program, call.variant, call.payer] = is_limited
            return
        special = _special(call)
        self._is_special_limited.pop(special, None)
        self._is_special_limited[special] = is_limited
        if len(self._is_special_limited) > _MOST_SPECIAL:
            self._is_special_limited.popitem(last=False)

    def _configured(self, call: BilledCall) -> list[int | None]:
        """Return the limits of a call that the configuration states, in the scripts' order."""
        names = call.program, call.variant
        return list(configured_limits(self._settings, *names, payer=call.payer, tenant=call.tenant).values())

    def _lease_seconds(self, call: BilledCall) -> float:
        model = self._settings.models.get(call.model)
        timeout_seconds = model.timeout_seconds if model else 0.0
        return self._settings.rate_limit.longest_wait_seconds + timeout_seconds + _GRACE_SECONDS

    def _limits_of(self, call: BilledCall) -> dict[str, Any]:
        """Return the arguments of ``call_limits.lua``; the parts are cached because they rarely change."""
        caller = call.program, call.variant, call.model, call.payer, bool(call.tenant)
        if (stated := self._callers.get(caller)) is None:
            limits = self._configured(call)
            are_any = any(limit is not None for limit in limits)
            configured = " ".join("-" if limit is None else str(limit) for limit in limits) if are_any else ""
            stated = dict(zip(("program", "variant", "model", "configured"), (*caller[:3], configured), strict=True))
            if call.payer:
                stated["payer"] = call.payer
            if call.tenant and (rate := self._settings.tenants.rate):
                stated["tenant_rate"] = rate
            self._callers[caller] = stated
        periods = self._calendar.now()
        computed, chosen = self._periods
        if computed is not periods:
            chosen = {"days": _in_one(periods.days), "months": _in_one(periods.months)}
            self._periods = periods, chosen
        if not (call.batch or call.tenant):
            return {**stated, **chosen}
        payers = {"batch": call.batch, "tenant": call.tenant}
        return {**stated, **chosen, **{name: payer for name, payer in payers.items() if payer}}


def _special(call: BilledCall) -> _Special:
    return call.program, call.variant, call.batch, call.tenant


def _in_one(periods: Iterable[Period]) -> str:
    """Return the periods as one argument: Redis and Lua take three times as long for one for each part."""
    return " ".join(f"{period.label} {period.starts_at} {period.ends_at}" for period in periods)


def _checked(nano_usd: int) -> int:
    if not 0 <= nano_usd <= _LARGEST_NANO_USD:
        raise ValueError(f"{nano_usd} nano-dollars: a call costs from 0 to {_LARGEST_NANO_USD}")
    return nano_usd


def _verdict(reply: list[bytes]) -> HoldVerdict:
    if reply[0] == b"held":
        return _HELD
    if reply[0] == b"killed":
        return _KILLED
    verdict, wait, scope, period, limit = (part.decode() for part in reply)
    if verdict == "clock":
        raise Unavailable(
            f"this machine's clock is wrong: no day or month near it holds Redis's {float(wait):.0f} (seconds since "
            "1970); set both clocks by NTP"
        )
    return HoldVerdict(cast("HoldDecision", verdict), float(wait), scope, cast("PeriodKind", period), int(limit))


def _nothing(_: Any) -> None:
    return None
