"""Holds of calls that wait for their provider's batch interface: at its price, past breaker and rate limit."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from dspyq.guards.admission import Admission
from dspyq.guards.billing import BilledCall
from dspyq.guards.budget import Budget, HoldVerdict
from dspyq.guards.call import Call
from dspyq.guards.interruptions import Interruption
from dspyq.guards.ledger import Ledger
from dspyq.store.scripts import Step, run_together

_BUSY = frozenset({"busy", "batch_busy", "tenant_busy"})
_FREE, _NO_ROOM = HoldVerdict("held"), HoldVerdict("busy")


class HoldTerms(NamedTuple):
    """Terms of a hold.

    Attributes:
        lease_seconds: How long it lasts without a renewal.
        calls: How many calls the row still needs, this one included: it is begun only if all can be paid.
    """

    lease_seconds: float
    calls: int = 1


class LaneHolds:
    """Holds of calls in lanes.

    Args:
        client: The Redis of jobs.
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
            is_limited = self._budget.is_limited(billed)
            hold = self._look(billed, bound, terms.calls) if is_limited and terms.calls > 1 else _FREE
            if hold.is_held:
                hold = self._hold(billed, bound, terms.lease_seconds)
            if hold.is_held:
                return bound
            if hold.verdict in _BUSY:
                return None
            admission.refuse_by_budget(billed, bound, hold, ledger.job.run_count if ledger.job else 1)
        except Interruption as interruption:
            raise admission.counted(ledger.interrupt(interruption)) from None

    def _hold(self, billed: BilledCall, bound: int, lease_seconds: float) -> HoldVerdict:
        """Hold the cost, unless calls in lanes then held more than their share of what a day's limit has left."""
        steps: list[Step[Any]] = [
            self._budget.hold(billed, bound, lease_seconds=lease_seconds),
            self._budget.ask_room(billed, bound, self._share),
        ]
        hold, has_room = run_together(self._client, steps)
        if hold.is_held and not has_room:
            run_together(self._client, [self._budget.release(billed)])
            return _NO_ROOM
        verdict: HoldVerdict = hold
        return verdict

    def _look(self, billed: BilledCall, bound: int, calls: int) -> HoldVerdict:
        """Return the verdict on all calls that the row still needs; ``held`` if nothing blocks them."""
        (whole,) = run_together(self._client, [self._budget.peek(billed, bound * calls)])
        return whole if whole.verdict in {*_BUSY, "batch_limit"} else _FREE
