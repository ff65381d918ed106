"""Asks again what failed on something that passes: in the same OUT, or as a batch of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import orjson
from pydantic_core import to_jsonable_python

from dspyq.batch.entry import State
from dspyq.batch.files.source import open_source
from dspyq.batch.files.spool import sync_folder
from dspyq.batch.journal import Journal, journal_path
from dspyq.batch.options import BatchOptions
from dspyq.errors import BatchRefused
from dspyq.prediction.request import find_program

_PAGE_LINES = 500


def retry_in_place(output: Path, input_path: Path | None = None) -> BatchOptions:
    """Make the retryable entries of a batch open again; return what to run, which is the same batch.

    Their lines leave OUT. Lines behind the first of them wait in the journal meanwhile, and the run writes them back:
    so one commit of the journal changes everything, and a crash leaves the state before it or after it.

    Args:
        output: The batch's OUT.
        input_path: Its IN, where that was moved.

    Raises:
        BatchRefused: If there is no such batch, or another process works on it.
    """
    with _opened(output) as journal:
        journal.reopen(output)
        journal.commit()
        return _options(journal, input_path, output)


def retry_elsewhere(output: Path, new_output: Path, input_path: Path | None = None) -> BatchOptions:
    """Write the rows of a batch's retryable entries to a file beside a new output; return the batch to run of it.

    An input that an earlier such call has written serves again, so that a batch can be taken up again.

    Args:
        output: The first batch's OUT.
        new_output: The new batch's OUT.
        input_path: The first batch's IN, where that was moved.

    Raises:
        BatchRefused: If there is no such batch, or another process works on it.
        InvalidFile: If its input cannot be read.
    """
    rows_path = new_output.with_name(f"{new_output.name}.input.jsonl")
    with _opened(output) as journal:
        options = _options(journal, input_path, output)
        if not rows_path.exists():
            _write_rows(journal, options, rows_path)
    return replace(options, input=rows_path, output=new_output, format=None)


class _FailedEntries(Journal):
    """A journal, for the sake of its entries that failed on something that passes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def retryable_rows(self) -> Iterator[int]:
        """Yield the numbers of their rows, in order."""
        row = 0
        while page := self._page("SELECT DISTINCT row FROM entries WHERE row > ? AND state = ? ORDER BY row", row):
            yield from (row for (row,) in page)
            row = page[-1][0]

    def reopen(self, output: Path) -> None:
        """Make them as if they were not asked yet, and have every line of OUT behind the first of theirs wait.

        What they paid stays theirs.
        """
        first = self._scalar("SELECT coalesce(min(start), -1) FROM entries WHERE state = ?", State.RETRYABLE)
        self._database.execute(
            "DELETE FROM lines WHERE number IN (SELECT number FROM entries WHERE state = ?)", (State.RETRYABLE,)
        )
        self._database.execute(
            "UPDATE entries SET state = ?, task_id = NULL, is_claimed = 0, start = NULL, length = NULL, "
            "done_at = NULL, outcome = NULL WHERE state = ?",
            (State.OPEN, State.RETRYABLE),
        )
        if first >= 0:
            self._take_lines_back(output, first)

    def _take_lines_back(self, output: Path, first: int) -> None:
        number = 0
        statement = "SELECT number, start, length FROM entries WHERE number > ? AND start >= ? ORDER BY number"
        with output.open("rb") as file:
            while page := self._page(statement, number, first):
                lines = [(number, os.pread(file.fileno(), length, start)) for number, start, length in page]
                self._database.executemany("INSERT OR REPLACE INTO lines VALUES (?, ?)", lines)
                number = page[-1][0]
        self._database.execute("UPDATE entries SET start = NULL, length = NULL WHERE start >= ?", (first,))

    def _page(self, statement: str, after: int, other: int = State.RETRYABLE) -> list[tuple[int, ...]]:
        return self._database.execute(f"{statement} LIMIT {_PAGE_LINES}", (after, other)).fetchall()


def _opened(output: Path) -> _FailedEntries:
    if not journal_path(output).exists():
        raise BatchRefused(f"{output} has no journal beside it, {journal_path(output).name}: it is no batch's output")
    return _FailedEntries(output)


def _options(journal: Journal, input_path: Path | None, output: Path) -> BatchOptions:
    stated = journal.meta("options")
    if stated is None:
        raise BatchRefused(f"{journal.path} does not say how its batch was run: run the batch's own command again")
    options = BatchOptions.from_json(stated)
    return replace(options, output=output, input=input_path or options.input or _spool(output))


def _spool(output: Path) -> Path:
    return output.with_name(f"{output.name}.input")


def _write_rows(journal: _FailedEntries, options: BatchOptions, path: Path) -> None:
    """Write the rows, whole or not at all."""
    program = find_program(options.program)
    source = open_source(options.input, spool=_spool(options.output), format=options.format)
    wanted = journal.retryable_rows()
    number = next(wanted, None)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        for row in source.rows(program):
            if number is None:
                break
            if row.number == number:
                kept = {"custom_id": row.custom_id, "inputs": row.inputs}
                file.write(orjson.dumps(kept, default=to_jsonable_python, option=orjson.OPT_APPEND_NEWLINE))
                number = next(wanted, None)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)
