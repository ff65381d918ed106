"""Parts of a running batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dspyq.batch.account import BatchAccount
from dspyq.batch.events import EntryCounts
from dspyq.batch.journal import Journal
from dspyq.batch.output import Output
from dspyq.batch.output_lines import BatchContext
from dspyq.batch.receipts import Receipts
from dspyq.batch.redis_retry import RetryUntilStopped
from dspyq.batch.registry import Registry
from dspyq.client.bulk import Bulk
from dspyq.client.spread_bulk import BulkOverSpines


class Servers(NamedTuple):
    """Clients of Redis for a batch.

    Attributes:
        bulk: Questions.
        account: The batch's account.
        registry: The registry of batches.
    """

    bulk: Bulk | BulkOverSpines
    account: BatchAccount
    registry: Registry


@dataclass(frozen=True)
class BatchParts:
    """Parts of a running batch.

    Attributes:
        servers: Redis.
        retry: Waits for Redis.
        journal: The journal.
        output: OUT.
        batch: The batch.
        counts: Counts of written lines.
        receipts: Receipts of their costs.
    """

    servers: Servers
    retry: RetryUntilStopped
    journal: Journal
    output: Output
    batch: BatchContext
    counts: EntryCounts
    receipts: Receipts
