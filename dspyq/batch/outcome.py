"""Outcome of a batch's run, with its cost beside the ledger's."""

from __future__ import annotations

from typing import NamedTuple

import redis

from dspyq.batch.account import BatchAccount
from dspyq.batch.events import BatchOutcome, EntryCounts, Reconciliation, RunState
from dspyq.core.money import to_usd


class RowsRead(NamedTuple):
    """Extent to which a batch's input was read.

    Attributes:
        rows: Entries of all rows that were read.
        is_all: True if those are all rows.
    """

    rows: int
    is_all: bool


def outcome_of(
    batch_id: str, state: RunState, counts: EntryCounts, read: RowsRead, account: BatchAccount
) -> BatchOutcome:
    """Return the outcome of a run that ended.

    Args:
        batch_id: The batch.
        state: The state in which it ended.
        counts: Its counts.
        read: Extent to which its input was read.
        account: Its account.
    """
    left = read.rows - counts.done
    what = f"{left:,} rows" if read.is_all else f"{left:,} rows and those not read yet are"
    remark = ""
    if state == "limited":
        remark = f"{what} left: run again with a higher --max-usd"
    elif state != "finished":
        remark = f"{what} left: run the same command again to go on"
    return BatchOutcome(
        batch_id=batch_id,
        state=state,
        rows=read.rows,
        ok=counts.ok,
        failed_by_type=dict(counts.failed_by_type),
        cached=counts.cached,
        joined=counts.joined,
        left=left,
        is_read=read.is_all,
        spent_usd=to_usd(counts.cost_nano_usd),
        reconciliation=_reconciliation(counts, account),
        remark=remark,
    )


def _reconciliation(counts: EntryCounts, account: BatchAccount) -> Reconciliation | None:
    try:
        books, calls = account.statement()
    except redis.RedisError:
        return None
    return Reconciliation(counts.cost_nano_usd, books.settled_nano_usd, tuple(calls))
