"""Rows of IN as entries: checked and assigned to variants, without those that are done."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from dspyq.batch.clusters import note_clusters
from dspyq.batch.dispatcher import LookedUp
from dspyq.batch.entry import Entry, EntryState
from dspyq.batch.files.rows import Row
from dspyq.batch.journal import Journal
from dspyq.batch.output_lines import BatchContext, OutputLine, line_of_fault
from dspyq.errors import InvalidRequest
from dspyq.prediction.request import build_request

#: Rows that are looked up, asked and written in one go.
CHUNK_ROWS = 500


class RowChunk(NamedTuple):
    """Rows that were read and are about to be taken.

    Attributes:
        entries: Those that can be asked.
        faults: The lines of the others.
        looked_up: The pending look-up of the entries in the cache.
    """

    entries: list[Entry]
    faults: list[OutputLine]
    looked_up: LookedUp | None


class EntryReader:
    """The entries of a batch that are yet to be taken.

    Args:
        rows: All rows of IN.
        journal: The journal: entries done there are skipped, entries sent keep their tasks.
        batch: The batch.
        variants: The variants that answer each row; None for a row's own.

    Attributes:
        rows_read: Rows read by now, or by an earlier process.
        entries_per_row: Number of entries of each row.
        is_resumed: Whether an earlier process has read some.
        is_at_end: Whether all were read.
    """

    def __init__(
        self, rows: Iterator[Row], journal: Journal, batch: BatchContext, variants: tuple[str | None, ...] = (None,)
    ) -> None:
        self._rows = rows
        self._program = batch.program
        self._journal = journal
        self._batch = batch
        self._positions = {name: position for position, name in enumerate(batch.variants)}
        self._variants = variants
        self._journaled_rows = journal.rows_read()
        self._last_row = 0
        self.rows_read = self._journaled_rows
        self.entries_per_row = len(self._variants)
        self.is_resumed = self._journaled_rows > 0
        self.is_at_end = False

    def next_chunk(self, most_entries: int) -> tuple[list[Entry], list[OutputLine]]:
        """Return the next entries to take, and the lines of rows that cannot be asked."""
        most_rows = max(1, most_entries // self.entries_per_row)
        if self._last_row < self._journaled_rows:  # new rows come in chunks of their own: these are journaled at once
            most_rows = min(most_rows, self._journaled_rows - self._last_row)
        rows = list(islice(self._rows, most_rows))
        if not rows:
            self.is_at_end = True
            return [], []
        self._last_row = rows[-1].number
        known: dict[int, Entry] = {}
        if rows[0].number <= self._journaled_rows:
            known = self._journal.to_take(self._number(rows[0], 0), self._number(rows[-1], self.entries_per_row - 1))
            rows = [row for row in rows if row.number > self._journaled_rows or self._is_known(row, known)]
        self.rows_read = max(self.rows_read, self._last_row)
        note_clusters(self._journal, rows)
        taken_ids = self._journal.take_ids([(row.custom_id, row.number) for row in rows])
        entries, faults = [], []
        for row in rows:
            owner = taken_ids.get(row.custom_id, row.number)
            for index, variant in enumerate(self._variants):
                number = self._number(row, index)
                if row.number <= self._journaled_rows and number not in known:
                    continue
                made = self._entry(row, number, variant, owner)
                if isinstance(made, OutputLine):
                    faults.append(made)
                else:
                    entries.append(_joined_with(known.get(number), made))
        return entries, faults

    def _number(self, row: Row, index: int) -> int:
        return (row.number - 1) * self.entries_per_row + index + 1

    def _is_known(self, row: Row, known: dict[int, Entry]) -> bool:
        return any(self._number(row, index) in known for index in range(self.entries_per_row))

    def _entry(self, row: Row, number: int, variant: str | None, owner: int) -> Entry | OutputLine:
        """Return the entry of a row, or an error line with the reason there is none."""
        entry = Entry(number, row.number, row.custom_id, self._positions[variant] if variant else None)
        if row.inputs is None:
            assert row.fault is not None  # noqa: S101 - a row has either
            return line_of_fault(entry, *row.fault, self._batch)
        if owner != row.number:
            message = f"{row.where}: row {owner} has the same custom_id"
            return line_of_fault(entry, "DuplicateCustomId", message, self._batch)
        try:
            request = build_request(
                row.inputs,
                is_by_weight=True,  # a file's rows are no sample of the users
                program=self._program,
                variant=variant,
                tenant=self._batch.tenant,
                request_id=self._batch.request_id(number),
            )
        except InvalidRequest as error:
            return line_of_fault(entry, type(error).__name__, f"{row.where}: {error}", self._batch)
        entry.request = request
        entry.variant = self._positions[request.variant.name]
        entry.input_hash = bytes.fromhex(request.input_hash[:32])
        return entry


def _joined_with(known: Entry | None, entry: Entry) -> Entry:
    """Return an entry, completed from the journal's record of it."""
    if known is not None:
        entry.paid_nano_usd = known.paid_nano_usd
        entry.prompt_tokens, entry.completion_tokens = known.prompt_tokens, known.completion_tokens
        if known.state == EntryState.ASKED:
            entry.state, entry.task_id, entry.is_claimed = EntryState.ASKED, known.task_id, known.is_claimed
    return entry
