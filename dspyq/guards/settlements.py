"""Settlements of calls, as the budget's script replies, and the log lines that an operator needs of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, cast

from dspyq.core.events import Event
from dspyq.core.money import to_usd
from dspyq.guards import metrics
from dspyq.guards.billing import BilledCall
from dspyq.guards.limits import PeriodKind, describe_scope

logger = logging.getLogger("dspyq.budget")


@dataclass(frozen=True, slots=True)
class Crossing:
    """A limit that a call has used up to a percentage.

    Attributes:
        scope: The limit's scope.
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
    """Result of settling a call.

    Attributes:
        found: ``held``: its hold; ``expired``: its lease had run out and its bound was charged, which the bill has
            replaced; ``nothing``: no hold, as where Redis lost its data: the bill is charged to the current periods;
            ``settled``: it was settled before, nothing is changed; ``unknown``: it had no hold and was to be charged
            only if it had one: it was settled long ago, or its hold was lost;
            ``clock``: nothing is charged, for there was no hold and this process's clock is wrong.
        charged_nano_usd: Total charge for the call.
        held_nano_usd: Amount held for it.
        crossings: The limits it has used up to a percentage for the first time.
    """

    found: Literal["held", "expired", "nothing", "settled", "unknown", "clock"]
    charged_nano_usd: int
    held_nano_usd: int
    crossings: tuple[Crossing, ...] = ()

    @property
    def is_above_hold(self) -> bool:
        """Return True if the call cost more than was held for it."""
        return self.found in {"held", "expired"} and self.charged_nano_usd > self.held_nano_usd


def read_settlement(reply: list[bytes]) -> Settlement:
    """Return the settlement that a script replied."""
    found, charged, held, *crossed = [part.decode() for part in reply]
    crossings = tuple(
        Crossing(scope, cast("PeriodKind", period), int(percentage), int(settled), int(limit))
        for scope, period, percentage, settled, limit in zip(*[iter(crossed)] * 5, strict=True)
    )
    return Settlement(cast("Any", found), int(charged), int(held), crossings)


def report(call: BilledCall, settlement: Settlement, *, names_tenants: bool = False) -> None:
    """Log and count settlements that an operator should see.

    Args:
        call: The call.
        settlement: How it was settled.
        names_tenants: Whether metrics and logs name its tenant.
    """
    for crossing in settlement.crossings:
        scope, name = crossing.scope, describe_scope(crossing.scope)[0]
        if scope.startswith("tenant:") and not names_tenants:
            scope = name = "tenant"
        metrics.BUDGET_WARNINGS.labels(scope, crossing.period, str(crossing.percentage)).inc()
        logger.warning(
            Event(
                "budget_threshold",
                scope=name,
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
