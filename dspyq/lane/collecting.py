"""Collecting of batches that have ended: their results are read line by line and land by the hundred."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from dspyq.lane.journal import LaneJournal
from dspyq.lane.landing import LandedLines, Landing
from dspyq.lane.providers.protocol import BatchProvider, BatchState, LineOutcome, RemoteBatch, RemoteLine
from dspyq.lane.shipment import Shipment

_AT_ONCE = 100
#: The code of a line that has no result, by the state of its batch.
_MISSING = {
    BatchState.ENDED: "missing",
    BatchState.EXPIRED: "batch_expired",
    BatchState.CANCELLED: "batch_cancelled",
    BatchState.FAILED: "batch_failed",
}


class Collecting:
    """Collects the batches of one lane.

    Args:
        journal: The lane's journal.
        provider: The batch interface.
        landing: Lands lines.

    Attributes:
        landing: Lands lines.
    """

    def __init__(self, journal: LaneJournal, provider: BatchProvider, landing: Landing) -> None:
        self._journal = journal
        self._provider = provider
        self.landing = landing

    def collect(self, shipment: Shipment, batch: RemoteBatch) -> LandedLines:
        """Land all lines of a batch in a final state; those without a result as not answered.

        A repetition, after an error or by another worker, lands what is left.
        """
        found = self._land(lambda: self._provider.read_lines(batch))
        missing = dict.fromkeys(self._left(shipment.name))
        for one in self._provider.read_lines(batch) if missing else ():
            # A Redis that restarted has lost its landing: it lands when this is repeated.
            missing.pop(one.custom_id, None)
        return _sum([found, self.send_back(missing, _MISSING.get(batch.state, "missing"))])

    def give_up(self, name: str, code: str, *, is_lasting: bool) -> LandedLines:
        """Land what is left of a shipment: without an outcome, or as refused for good."""
        if is_lasting:
            return self.refuse(self._left(name), code)
        return self.send_back(self._left(name), code)

    def refuse(self, custom_ids: Iterable[str], code: str) -> LandedLines:
        """Land lines that the provider refuses for good, of which it states nothing but a code."""
        body = {"error": {"message": f"the batch was refused: {code}", "code": code, "type": "invalid_request_error"}}
        refused = list(custom_ids)
        return self._land(lambda: (RemoteLine(each, LineOutcome.FAILED, 400, body, code=code) for each in refused))

    def send_back(self, custom_ids: Iterable[str], code: str) -> LandedLines:
        """Land lines without an outcome: their programs ask again."""
        ids = list(custom_ids)
        return self._land(lambda: (RemoteLine(each, LineOutcome.UNANSWERED, code=code) for each in ids))

    def charge_unknown(self, shipment: Shipment) -> LandedLines:
        """Land what is left of a shipment whose results cannot be had, each charged at its bound."""
        ids = list(self._left(shipment.name))
        return self._land(lambda: (RemoteLine(each, LineOutcome.UNREADABLE, code="results_gone") for each in ids))

    def charge_double(self, shipment: Shipment, batch: RemoteBatch) -> int:
        """Charge what a second batch of a shipment's lines cost; return how many lines it answered."""
        charged = 0
        for chunk in _chunks(self._provider.read_lines(batch)):
            copies = self._journal.copies(shipment.name, [one.custom_id for one in chunk if one.custom_id])
            charged += self.landing.charge_double(copies, chunk, batch.id)
        return charged

    def _land(self, read: Callable[[], Iterable[RemoteLine]]) -> LandedLines:
        """Land lines, whose money is settled before for certain: nothing states their bills later."""
        if self.landing.is_money_apart:
            batches = [self.landing.settle(chunk) for chunk in _chunks(read())]
            if batch := next(filter(None, batches), ""):
                self.landing.wait_for_disk(batch)
        return _sum([self.landing.land(chunk) for chunk in _chunks(read())])

    def _left(self, name: str) -> Iterable[str]:
        for ids in self._journal.all_ids_of(name):
            yield from self._journal.lines(ids)


def _chunks(lines: Iterable[RemoteLine]) -> Iterable[Sequence[RemoteLine]]:
    iterator = iter(lines)
    while chunk := list(itertools.islice(iterator, _AT_ONCE)):
        yield chunk


def _sum(parts: Iterable[LandedLines]) -> LandedLines:
    return (
        LandedLines(*(sum(column) for column in zip(*parts, strict=True))) if (parts := list(parts)) else LandedLines()
    )
