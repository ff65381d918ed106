"""Retry of rows that failed on something transient: in the same OUT, or as a batch of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from pydantic_core import to_jsonable_python

from dspyq.batch.entry import EntryState
from dspyq.batch.files.source import open_source
from dspyq.batch.files.spool import sync_folder
from dspyq.batch.journal import Journal, journal_path
from dspyq.batch.options import BatchOptions
from dspyq.core.private import open_private
from dspyq.errors import BatchRefused
from dspyq.prediction.request import find_program

_PAGE_LINES = 500
#: The fact of a journal that the batch's input is its own copy of a stream.
INPUT_KEPT = "input_kept"


def retry_in_place(output: Path, input_path: Path | None = None) -> BatchOptions:
    """Reopen the retryable entries of a batch; return the options to run, those of the same batch.

    Their lines leave OUT. Lines behind the first of them wait in the journal meanwhile, and the run writes them back:
    so one commit of the journal changes everything, and a crash leaves the state before it or after it.

    Args:
        output: The batch's OUT.
        input_path: Its IN, if that was moved.

    Raises:
        BatchRefused: If there is no such batch, or another process works on it.
    """
    with _opened(output) as journal:
        _reopen(journal, output)
        journal.commit()
        return _options(journal, input_path, output)


def retry_elsewhere(output: Path, new_output: Path, input_path: Path | None = None) -> BatchOptions:
    """Write the rows of a batch's retryable entries to a file beside a new output; return the options to run it.

    An input written by an earlier such call is used again, so that a batch can be resumed.

    Args:
        output: The first batch's OUT.
        new_output: The new batch's OUT.
        input_path: The first batch's IN, if that was moved.

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


def forget_kept_input(output: Path) -> None:
    """Delete a finished batch's copy of its standard input, unless failed rows of it may be retried."""
    with _opened(output) as journal:
        if journal.meta(INPUT_KEPT) and next(_retryable_rows(journal), None) is None:
            _spool(output).unlink(missing_ok=True)


def _retryable_rows(journal: Journal) -> Iterator[int]:
    """Yield the numbers of rows whose entries failed transiently, in order."""
    row = 0
    while page := _page(journal, "SELECT DISTINCT row FROM entries WHERE row > ? AND state = ? ORDER BY row", row):
        yield from (row for (row,) in page)
        row = page[-1][0]


def _reopen(journal: Journal, output: Path) -> None:
    """Reset those entries, and move every line of OUT after the first of theirs to the waiting lines.

    Their cost so far stays on them.
    """
    ((first,),) = journal.execute("SELECT coalesce(min(start), -1) FROM entries WHERE state = ?", EntryState.RETRYABLE)
    journal.execute(
        "DELETE FROM lines WHERE number IN (SELECT number FROM entries WHERE state = ?)", EntryState.RETRYABLE
    )
    journal.execute(
        "UPDATE entries SET state = ?, task_id = NULL, is_claimed = 0, start = NULL, length = NULL, "
        "done_at = NULL, outcome = NULL WHERE state = ?",
        EntryState.OPEN,
        EntryState.RETRYABLE,
    )
    if first >= 0:
        _take_lines_back(journal, output, first)


def _take_lines_back(journal: Journal, output: Path, first: int) -> None:
    number = 0
    statement = "SELECT number, start, length FROM entries WHERE number > ? AND start >= ? ORDER BY number"
    with output.open("rb") as file:
        while page := _page(journal, statement, number, first):
            for number, start, length in page:
                line = os.pread(file.fileno(), length, start)
                journal.execute("INSERT OR REPLACE INTO lines VALUES (?, ?)", number, line)
    journal.execute("UPDATE entries SET start = NULL, length = NULL WHERE start >= ?", first)


def _page(journal: Journal, statement: str, after: int, other: int = EntryState.RETRYABLE) -> list[tuple[int, ...]]:
    return journal.execute(f"{statement} LIMIT {_PAGE_LINES}", after, other)


@contextmanager
def _opened(output: Path) -> Iterator[Journal]:
    if not journal_path(output).exists():
        raise BatchRefused(f"{output} has no journal beside it, {journal_path(output).name}: it is no batch's output")
    with closing(Journal(output)) as journal:
        yield journal


def _options(journal: Journal, input_path: Path | None, output: Path) -> BatchOptions:
    stated = journal.meta("options")
    if stated is None:
        raise BatchRefused(f"{journal.path} does not state its batch's options: run the batch's own command again")
    options = BatchOptions.from_json(stated)
    return replace(options, output=output, input=input_path or options.input or _spool(output))


def _spool(output: Path) -> Path:
    return output.with_name(f"{output.name}.input")


def _write_rows(journal: Journal, options: BatchOptions, path: Path) -> None:
    """Write the rows, whole or not at all."""
    program = find_program(options.program)
    source = open_source(options.input, spool=_spool(options.output), format=options.format)
    wanted = _retryable_rows(journal)
    number = next(wanted, None)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with open(unfinished, "wb", opener=open_private) as file:
        for row in source.rows(program.as_served(options.variant), options.cluster):
            if number is None:
                break
            if row.number == number:
                kept: dict[str, Any] = {"custom_id": row.custom_id, "inputs": row.inputs}
                if options.cluster and options.cluster not in (row.inputs or {}):
                    kept[options.cluster] = row.cluster  # the same for the same rows
                file.write(orjson.dumps(kept, default=to_jsonable_python, option=orjson.OPT_APPEND_NEWLINE))
                number = next(wanted, None)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)
