"""Rows of a CSV file: columns are the program's input fields, cells read as the types its signature states."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dspyq.batch.files.cells import Misread, cell_reader
from dspyq.batch.files.rows import CUSTOM_ID, Row, RowReader, faulty
from dspyq.config.models import Program
from dspyq.errors import InvalidFile

_BOM = b"\xef\xbb\xbf"
_UNCLOSED = "unexpected end of data"


class TooLong(Exception):
    """A line, or a row over several lines, is larger than a row may be."""


class CsvRows:
    """The rows of a file's lines, its header read at once.

    A quote that is not closed would swallow all that follows: then the row of that quote alone is faulty, and reading
    goes on with the next line.

    Args:
        path: The file's name, for messages.
        lines: Its lines; None for one that is too long.
        program: Whose input fields the columns are.
        max_bytes: The most bytes of a row.

    Raises:
        InvalidFile: If the header does not name exactly the program's fields, and ``custom_id`` where wanted.
    """

    def __init__(self, path: Path, lines: Iterator[bytes | None], program: Program, max_bytes: int) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
        self._max_bytes = max_bytes
        self._feed = _Feed(lines, max_bytes)
        self._records = csv.reader(self._feed, strict=True)
        self._reader = RowReader(program)
        self._columns = self._read_header(path, program)
        fields = {field.name: field for field in program.signature.inputs}
        read = {name: cell_reader(fields[name]) for name in self._columns if name in fields}
        self._typed = {name: reader for name, reader in read.items() if reader is not None}

    def __iter__(self) -> Iterator[Row]:
        """Return the rows behind the header."""
        feed, number = self._feed, 1
        while True:
            feed.begin()
            try:
                cells = next(self._records)
            except StopIteration:
                return
            except (csv.Error, TooLong) as error:
                yield faulty(number, feed.first_line, *self._explain(error))
                feed.give_back_all_but_one()
                self._records = csv.reader(feed, strict=True)
                number += 1
                continue
            if cells:
                yield self._row(cells, number)
                number += 1

    def _row(self, cells: list[str], number: int) -> Row:
        line = self._feed.first_line
        if self._feed.is_undecodable:
            return faulty(number, line, "NotUtf8", "not UTF-8")
        if len(cells) != len(self._columns):
            message = f"{len(cells)} cells where the header has {len(self._columns)}"
            return faulty(number, line, "InvalidRow", message)
        values: dict[str, Any] = dict(zip(self._columns, cells, strict=True))
        try:
            for name, read in self._typed.items():
                values[name] = read(values[name])
        except Misread as misread:
            return faulty(number, line, "InvalidInputs", f"{name} {misread}", self._reader.take_id(values))
        return self._reader.from_cells(values, number, line)

    def _read_header(self, path: Path, program: Program) -> list[str]:
        self._feed.begin()
        try:
            columns = next((cells for cells in self._records if cells), [])
        except (csv.Error, TooLong) as error:
            raise InvalidFile(f"{path}: the header is not CSV: {self._explain(error)[1]}") from None
        if self._feed.is_undecodable:
            raise InvalidFile(f"{path} is not UTF-8; save it as UTF-8")
        check_columns(path, columns, program)
        return columns

    def _explain(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, TooLong):
            return "RowTooLarge", f"larger than {self._max_bytes:,} bytes, or a quote that is not closed"
        what = "a quote that is not closed" if str(error) == _UNCLOSED else str(error)
        return "InvalidRow", f"not CSV ({what})"


def check_columns(path: Path, columns: Iterable[str], program: Program) -> None:
    """Check that a file's columns are the program's input fields, and ``custom_id`` where wanted.

    Raises:
        InvalidFile: If one is missing, unknown, or there twice.
    """
    columns = list(columns)
    fields = [field.name for field in program.signature.inputs]
    missing = [name for name in fields if name not in columns]
    unknown = [name for name in columns if name not in {*fields, CUSTOM_ID}]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    faults = [
        f"{what} {', '.join(map(repr, names))}"
        for what, names in (("lacks", missing), ("has besides", unknown), ("repeats", twice))
        if names and columns
    ]
    if faults:
        raise InvalidFile(f"{path}: {program.name} takes the columns {', '.join(fields)}; it {', and '.join(faults)}")


class _Feed:
    """Gives a CSV reader its lines as text, and remembers those of the row that it reads."""

    def __init__(self, lines: Iterator[bytes | None], max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self._again: deque[tuple[int, bytes | None]] = deque()
        self._row: list[tuple[int, bytes | None]] = []
        self._row_bytes = 0
        self._line = 0
        self.is_undecodable = False

    @property
    def first_line(self) -> int:
        """The number of the row's first line."""
        return self._row[0][0]

    def begin(self) -> None:
        """Begin a row."""
        self._row.clear()
        self._row_bytes = 0
        self.is_undecodable = False

    def give_back_all_but_one(self) -> None:
        """Read the row's lines again but for its first."""
        self._again.extendleft(reversed(self._row[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._again:
            number, line = self._again.popleft()
        else:
            line = next(self._lines)
            number = self._line = self._line + 1
            if number == 1 and line is not None:
                line = line.removeprefix(_BOM)
        self._row.append((number, line))
        self._row_bytes += len(line or b"")
        if line is None or self._row_bytes > self._max_bytes:
            raise TooLong
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.is_undecodable = True
            return line.decode(errors="replace")
