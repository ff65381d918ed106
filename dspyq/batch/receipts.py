"""Receipts of a batch: costs that are on its rows, and are to be cleared from the notes in its account."""

from __future__ import annotations

import time

from dspyq.batch.account import BatchAccount
from dspyq.batch.journal import Journal
from dspyq.batch.redis_retry import RetryUntilStopped

#: Longer than Redis takes to write what it was sent to its disk, with ``appendfsync everysec``.
_CERTAIN_SECONDS = 3.0


class Receipts:
    """Receipts of a batch, in its journal until they are cleared for certain.

    Args:
        account: The batch's account.
        journal: Its journal.
        retry: Waits for Redis.
        waits_for_disk: Whether a row is written only once its cost is on Redis's disk, as of a provider's lane: there,
            after a Redis that has lost its last second, the same calls land again.
    """

    def __init__(
        self, account: BatchAccount, journal: Journal, retry: RetryUntilStopped, *, waits_for_disk: bool
    ) -> None:
        self._account = account
        self._journal = journal
        self._retry = retry
        self._cleared_at: dict[str, float] = {}
        self.waits_for_disk = waits_for_disk

    def wait_for_disk(self) -> None:
        """Wait until what was charged so far is on Redis's disk, if the batch waits for that."""
        if self.waits_for_disk:
            self._retry(self._account.wait_for_disk)

    def clear(self) -> None:
        """Clear the costs that the journal's last commit has on rows.

        Receipts stay for some seconds, and are cleared again: a Redis that restarts may have lost that they were.
        """
        receipts = self._journal.receipts()
        if not receipts:
            return
        self._retry(lambda: self._account.collected(receipts))
        now = time.monotonic()
        cleared_at = {each: self._cleared_at.get(each, now) for each in receipts}
        self._journal.drop_receipts([each for each, at in cleared_at.items() if now - at >= _CERTAIN_SECONDS])
        self._cleared_at = {each: at for each, at in cleared_at.items() if now - at < _CERTAIN_SECONDS}

    def end(self) -> None:
        """Clear what is left for certain."""
        self.wait_for_disk()
        self.clear()
        self._journal.drop_receipts(self._cleared_at)
