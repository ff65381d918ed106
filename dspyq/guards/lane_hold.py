"""Holds of calls that wait for their provider's batch interface: at its price, past breaker and rate limit."""

from __future__ import annotations

import redis

from dspyq.guards.admission import Admission
from dspyq.guards.billing import BilledCall
from dspyq.guards.budget import Budget
from dspyq.guards.call import Call
from dspyq.guards.interruptions import Interruption
from dspyq.guards.ledger import Ledger
from dspyq.store.scripts import run_together


class LaneHolds:
    """Holds of calls in lanes.

    Args:
        client: The Redis of jobs.
        budget: The budget of all models.
    """

    def __init__(self, client: redis.Redis, budget: Budget) -> None:
        self._client = client
        self._budget = budget

    def hold(
        self, ledger: Ledger, admission: Admission, billed: BilledCall, call: Call, lease_seconds: float
    ) -> int | None:
        """Hold the cost bound of a call; return it in nano-dollars, or None while other calls hold the money.

        Args:
            ledger: Ledger of the running prediction.
            admission: The guards of its model.
            billed: The call.
            call: The request.
            lease_seconds: How long it is held without a renewal.

        Raises:
            Interruption: If the call may not be made. Nothing is held then, and the run is marked as interrupted.
            redis.RedisError: If Redis does not answer; a ``ResponseError`` if the call is settled already.
        """
        try:
            admission.bound_of(billed, call)
            bound = call.bound_in("provider")
            (hold,) = run_together(self._client, [self._budget.hold(billed, bound, lease_seconds=lease_seconds)])
            if hold.is_held:
                return bound
            if hold.verdict in {"busy", "batch_busy", "tenant_busy"}:
                return None
            admission.refuse_by_budget(billed, bound, hold, ledger.job.run_count if ledger.job else 1)
        except Interruption as interruption:
            raise admission.counted(ledger.interrupt(interruption)) from None
