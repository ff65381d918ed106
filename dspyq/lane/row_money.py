"""Money of rows in a lane: a row is begun only if all its calls can be paid, and rows that have begun come first."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

import redis

from dspyq.guards.admission import Admission
from dspyq.guards.batch_lanes import BatchLane
from dspyq.guards.billing import BilledCall
from dspyq.guards.call import Call
from dspyq.guards.call_records import JobRun
from dspyq.guards.interruptions import Deferral, Interruption, RetryLater
from dspyq.guards.lane_hold import HoldTerms, LaneHolds
from dspyq.guards.ledger import Ledger
from dspyq.lane.depths import Depths
from dspyq.lane.journal import LaneLook
from dspyq.lane.line import billed_line, custom_id_of
from dspyq.lane.unpaid import UnpaidRows

#: A row for which there is no money is woken when some comes free; it comes back by itself so much later, each further
#: time after twice as long.
_FIRST_BUSY_SECONDS, _LONGEST_BUSY_SECONDS = 3.0, 600.0


@dataclass(frozen=True)
class LaneCall:
    """A call of a batch with a lane, in its run.

    Attributes:
        ledger: Ledger of the run.
        job: Owner of the call.
        admission: The guards of its model.
        call: The request.
        key: Its key in the ledger.
        attempt: Which attempt of it this is, from 1.
    """

    ledger: Ledger
    job: JobRun
    admission: Admission
    call: Call
    key: str
    attempt: int

    @property
    def custom_id(self) -> str:
        """The name of its line at the provider."""
        return custom_id_of(self.key, self.attempt, self.job.task_id)

    @property
    def billed(self) -> BilledCall:
        """The call as the budget bills it."""
        return billed_line(self.job.task_id, self.job, self.admission.model.name, self.custom_id)


class PayingRow(NamedTuple):
    """A row as its money sees it.

    Attributes:
        replies: How many of its calls are paid and answered, at least 1 once it has begun; else 0.
        calls: For how many of its calls there must be money in the lane.
        calls_left: How many it still needs.
        must_wait: Whether rows that have begun wait for money before it.
    """

    replies: int
    calls: int
    calls_left: int
    must_wait: bool = False


class RowMoney:
    """The money of rows in the lanes of a worker's models.

    Args:
        client: The Redis of jobs.
        holds: The holds of calls in lanes.
        depths: How many calls rows take.
    """

    def __init__(self, client: redis.Redis, holds: LaneHolds, depths: Depths) -> None:
        self._client = client
        self._holds = holds
        self._depths = depths

    def row_of(self, asked: LaneCall, look: LaneLook) -> PayingRow:
        """Return the row of a call. One that has begun needs money for its next call alone."""
        replies = asked.ledger.reused_replies
        calls = self._depths.calls_left(asked.job, replies)
        has_begun = bool(asked.ledger.earlier.replies) or look.lines > 0
        return PayingRow(max(1, replies), 1, calls) if has_begun else PayingRow(0, calls, calls, look.begun_waits)

    def hold(self, asked: LaneCall, row: PayingRow, lease_seconds: float) -> int:
        """Hold a call's bound at the batch price for so long; return it in nano-dollars.

        Raises:
            Interruption: If there is no money for it, or none yet.
        """
        bound = None
        try:
            if not row.must_wait:
                terms = HoldTerms(lease_seconds, row.calls)
                bound = self._holds.hold(asked.ledger, asked.admission, asked.billed, asked.call, terms)
        except redis.ResponseError:  # it landed since this run began, and is settled
            raise asked.ledger.interrupt(Deferral(lease_seconds)) from None
        if bound is None:
            raise self._wait(asked, row)
        return bound

    def leaves_lane(self, asked: LaneCall, row: PayingRow, lane: BatchLane) -> bool:
        """Return True if a call is to be made live, for its batch's money buys too few at once for the lane.

        Raises:
            Interruption: If there is no money for it, or none yet.
        """
        parts = asked.ledger, asked.admission, asked.billed, asked.call
        if lane.rest_goes_live:
            money = self._holds.money_for_live(*parts, row.calls_left)
            if money == "enough":
                return True
            if money == "later":
                raise self._wait(asked, row)
        if not row.replies and not self._holds.refuse(*parts):
            raise self._wait(asked, row)
        return False  # what it has paid for is of use only if it goes on

    def _wait(self, asked: LaneCall, row: PayingRow) -> Interruption:
        """Note that a row waits for money; return the interruption of its run."""
        UnpaidRows(self._client, asked.admission.model.name).add(asked.job, row.replies)
        longest = min(_LONGEST_BUSY_SECONDS, _FIRST_BUSY_SECONDS * 2.0 ** min(asked.job.run_count - 1, 10))
        return asked.ledger.interrupt(RetryLater(random.uniform(longest / 2, longest)))  # noqa: S311 - jitter
