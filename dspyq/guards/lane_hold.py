"""Holds of calls that wait for their provider's batch interface: at its price, past breaker and rate limit.

Such a hold lasts for hours, and is several times the bill. So a row is begun only if the money pays for all its calls,
beside what the rows that were begun before still need.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import redis

from dspyq.guards.admission import Admission
from dspyq.guards.billing import BilledCall
from dspyq.guards.budget import Budget, HoldVerdict, LaneTerms
from dspyq.guards.call import Call
from dspyq.guards.interruptions import Interruption
from dspyq.guards.ledger import Ledger
from dspyq.store.keys import batch_account_key
from dspyq.store.scripts import Step, command_step, run_together

_BUSY = frozenset({"busy", "batch_busy", "tenant_busy"})

#: ``enough``: there is money. ``later``: other calls hold it. ``none``: nothing but a higher limit helps.
Money = Literal["enough", "later", "none"]


class HoldTerms(NamedTuple):
    """Terms of a hold.

    Attributes:
        lease_seconds: How long it lasts without a renewal.
        calls: How many calls the row still needs, this one included, if it has not begun; 1 for one that has.
    """

    lease_seconds: float
    calls: int = 1


class _Spending(NamedTuple):
    """A batch's held nano-dollars, and its limit, 0 for none."""

    held: int
    most: int


class LaneHolds:
    """Holds of calls in lanes.

    Args:
        client: The Redis of money.
        budget: The budget of all models.
        share: The most of what a day's limit has left that calls may hold together once one in a lane is among them.
    """

    def __init__(self, client: redis.Redis, budget: Budget, share: float) -> None:
        self._client = client
        self._budget = budget
        self._share = share

    def hold(
        self, ledger: Ledger, admission: Admission, billed: BilledCall, call: Call, terms: HoldTerms
    ) -> int | None:
        """Hold the cost bound of a call; return it in nano-dollars, or None while other calls hold the money.

        Args:
            ledger: Ledger of the running prediction.
            admission: The guards of its model.
            billed: The call.
            call: The request.
            terms: How long it is held, and for how many calls there must be money.

        Raises:
            Interruption: If the call may not be made. Nothing is held then, and the run is marked as interrupted.
            redis.RedisError: If Redis does not answer; a ``ResponseError`` if the call is settled already.
        """
        try:
            admission.bound_of(billed, call)
            bound = call.bound_in("provider")
            (hold,) = run_together(self._client, [self._hold_step(billed, bound, terms)])
            if hold.is_held:
                return bound
            if hold.verdict in _BUSY or (hold.verdict == "batch_limit" and self._spending(billed).held):
                return None
            admission.refuse_by_budget(billed, bound, hold, ledger.job.run_count if ledger.job else 1)
        except Interruption as interruption:
            raise admission.counted(ledger.interrupt(interruption)) from None

    def money_for_live(self, ledger: Ledger, admission: Admission, billed: BilledCall, call: Call, calls: int) -> Money:
        """Return if there is money for so many live calls of a row.

        Raises:
            Interruption: If the call may not be made at all; the run is marked as interrupted.
            redis.RedisError: If Redis does not answer.
        """
        try:
            bound = admission.bound_of(billed, call)
        except Interruption as interruption:
            raise admission.counted(ledger.interrupt(interruption)) from None
        (verdict,) = run_together(self._client, [self._budget.peek(billed, bound, lane=LaneTerms(calls))])
        if verdict.verdict in _BUSY:
            return "later"
        if verdict.verdict == "batch_limit":
            return "later" if self._spending(billed).held else "none"
        return "enough"  # what else may block it refuses the live call in its own words

    def refuse(self, ledger: Ledger, admission: Admission, billed: BilledCall, call: Call) -> bool:
        """Refuse a row that its batch's limit has no money for; return False while any call of the batch holds money.

        Raises:
            BatchRefusal: If none does; the run is marked with it.
            redis.RedisError: If Redis does not answer.
        """
        spending = self._spending(billed)
        if spending.held:
            return False
        limit = HoldVerdict("batch_limit", scope=f"batch:{billed.batch}", limit_nano_usd=spending.most)
        try:
            admission.refuse_by_budget(billed, call.bound_in("provider"), limit, 1)
        except Interruption as interruption:
            raise admission.counted(ledger.interrupt(interruption)) from None

    def _hold_step(self, billed: BilledCall, bound: int, terms: HoldTerms) -> Step[HoldVerdict]:
        lane = LaneTerms(terms.calls, self._share)
        return self._budget.hold(billed, bound, lease_seconds=terms.lease_seconds, lane=lane)

    def _spending(self, billed: BilledCall) -> _Spending:
        names = "held", "max_nano_usd"
        read = [int(text or 0) for text in cast("list[bytes | None]", run_together(self._client, [
            command_step(_as_it_is, "HMGET", batch_account_key(billed.batch), *names)
        ])[0])]  # fmt: skip
        return _Spending(*read)


def _as_it_is(reply: Any) -> Any:
    return reply
