"""OUT: the file of lines, in order or as they come."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dspyq.batch.journal import Journal, Leader, Place
from dspyq.batch.output_lines import OutputLine
from dspyq.core.private import open_private
from dspyq.errors import BatchRefused

#: Lines that waited for their turn, written at a time.
_LINES_AT_ONCE = 500


class Output:
    """OUT and its journal: a line is in both, or after a crash in neither.

    Args:
        path: OUT.
        journal: Its journal.
        is_ordered: Whether lines are written in the order of the input.

    Raises:
        BatchRefused: If the file cannot be used, or is shorter than the journal states.
    """

    def __init__(self, path: Path, journal: Journal, *, is_ordered: bool) -> None:
        self._journal = journal
        self._is_ordered = is_ordered
        try:
            self._file = open_private(path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise BatchRefused(f"{path} cannot be written: {error.strerror}; choose another --output") from None
        found_bytes = os.fstat(self._file).st_size
        self._size_bytes = journal.output_bytes()
        if found_bytes < self._size_bytes:
            os.close(self._file)
            raise BatchRefused(
                f"{path} holds {found_bytes:,} bytes, less than the {self._size_bytes:,} written there: restore it, or "
                "choose another --output"
            )
        os.ftruncate(self._file, self._size_bytes)  # a torn line: its answer is still stored, or asked for again
        self._next = journal.places() + 1 if is_ordered else 0
        if not is_ordered:
            self._place_kept()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._file)

    def write(self, lines: Sequence[OutputLine]) -> None:
        """Write lines, or keep them until it is their turn, and note their entries as done."""
        if not self._is_ordered:
            self._journal.write(lines, self._append([line.text for line in lines]), time.time())
            return
        lines = sorted(lines, key=lambda line: line.entry.number)
        due = 0
        while due < len(lines) and lines[due].entry.number == self._next:
            due += 1
            self._next += 1
        starts: list[int | None] = [*self._append([line.text for line in lines[:due]])]
        starts += [None] * (len(lines) - due)
        self._journal.write(lines, starts, time.time())
        self._journal.keep_lines(lines[due:])
        if due:
            self._place_kept()

    def commit(self) -> None:
        """Sync to disk: OUT first, so that the journal never names a line that is missing."""
        os.fsync(self._file)
        self._journal.commit()

    def line_of(self, leader: Leader) -> bytes:
        """Return the line of an entry that is done."""
        if leader.place is not None:
            return os.pread(self._file, leader.place.length, leader.place.start)
        line = self._journal.kept_line(leader.number)
        if line is None:
            raise BatchRefused(f"the journal has lost the line of entry {leader.number}: choose another --output")
        return line

    def _place_kept(self) -> None:
        """Write waiting lines: in ordered mode those whose turn it is, otherwise all."""
        while True:
            due = []
            for number, text in self._journal.kept_lines(self._next - 1, _LINES_AT_ONCE):
                if self._is_ordered and number != self._next:
                    break
                due.append((number, text))
                self._next = number + 1
            starts = self._append([text for _, text in due])
            places = [(number, Place(start, len(text))) for (number, text), start in zip(due, starts, strict=True)]
            self._journal.placed(places)
            if len(due) < _LINES_AT_ONCE:
                return

    def _append(self, texts: Sequence[bytes]) -> list[int]:
        """Append lines; return where each starts."""
        starts = []
        for text in texts:
            starts.append(self._size_bytes)
            self._size_bytes += len(text)
        rest = memoryview(b"".join(texts))
        written_bytes = self._size_bytes - len(rest)
        while rest:
            count = os.pwrite(self._file, rest, written_bytes)
            written_bytes += count
            rest = rest[count:]
        return starts
