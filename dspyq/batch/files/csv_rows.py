"""Rows of a CSV file: columns are the program's input fields, cells are parsed by the types of its signature."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dspyq.batch.files.cells import Misread, cell_reader
from dspyq.batch.files.rows import CUSTOM_ID, Row, RowReader, faulty
from dspyq.batch.files.streams import BrokenStream, Lines
from dspyq.config.programs import Program
from dspyq.errors import InvalidFile

_BOM = b"\xef\xbb\xbf"
_BLANK = b"\r\n"
_INDEX_NAMES = frozenset({"", "Unnamed: 0"})
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
#: Where a quote was not closed, its lines are read again, and no row of them has more lines than this: without that,
#: each further quote would read all of them once more.
_MOST_LINES_AGAIN = 64
#: Extra bytes counted for each line of a row, as blank lines take memory too.
_BYTES_A_LINE = 16
_MOST_NAMES_SHOWN, _NAME_CHARACTERS_SHOWN = 8, 64
#: Errors of Python's reader, by their beginning, in terms of the file.
_OPEN_QUOTE = "unexpected end of data"
_FAULTS = {
    _OPEN_QUOTE: "a quote that is not closed",
    "new-line character seen": "a line end of CR alone: save the file with LF or CRLF",
}


class TooLong(Exception):
    """A line, or a row over several lines, is larger than a row may be."""


class CsvRows:
    """The rows of a file's lines, its header read at once.

    A quote that is not closed would swallow all that follows: then the row of that quote alone is faulty, and reading
    goes on with the next line.

    Args:
        path: The file's name, for messages.
        lines: Its lines; None for one that is too long.
        program: The program whose input fields are the columns.
        max_bytes: The most bytes of a row.
        cluster: A further column, which names a row's cluster; None for none.

    Raises:
        InvalidFile: If the header does not name the program's fields, but for those that may be left out, and
            ``custom_id`` where wanted.
    """

    def __init__(self, path: Path, lines: Lines, program: Program, max_bytes: int, cluster: str | None = None) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), max_bytes))
        self._max_bytes = max_bytes
        self._feed = _Feed(lines, max_bytes)
        self._records = csv.reader(self._feed, strict=True)
        self._reader = RowReader(program, cluster)
        self._columns = self._read_header(path, program, cluster)
        self._indexes = {name for name in self._columns if is_index(name, program)}
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
            else:
                feed.skip_blank()

    def _row(self, cells: list[str], number: int) -> Row:
        line = self._feed.first_line
        if self._feed.is_undecodable:
            return faulty(number, line, "NotUtf8", "not UTF-8")
        if len(cells) != len(self._columns):
            message = f"{len(cells)} cells where the header has {len(self._columns)}"
            return faulty(number, line, "InvalidRow", message)
        named = zip(self._columns, cells, strict=True)
        values: dict[str, Any] = {name: cell for name, cell in named if name not in self._indexes}
        try:
            for name, read in self._typed.items():
                values[name] = read(values[name])
        except Misread as misread:
            return faulty(number, line, "InvalidInputs", f"{name} {misread}", self._reader.take_id(values))
        return self._reader.from_cells(values, number, line)

    def _read_header(self, path: Path, program: Program, cluster: str | None) -> list[str]:
        self._feed.begin()
        try:
            columns = next(self._records, [])
            while not columns and self._feed.has_read:
                self._feed.skip_blank()
                self._feed.begin()
                columns = next(self._records, [])
        except (csv.Error, TooLong) as error:
            raise InvalidFile(f"{path}: the header is not CSV: {self._explain(error)[1]}") from None
        if self._feed.is_undecodable:
            raise InvalidFile(f"{path} is not UTF-8; save it as UTF-8")
        check_columns(path, columns, program, cluster)
        return columns

    def _explain(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, TooLong):
            return "RowTooLarge", f"larger than {self._max_bytes:,} bytes, or a quote that is not closed"
        text = str(error)
        what = next((said for start, said in _FAULTS.items() if text.startswith(start)), text)
        return "InvalidRow", f"not CSV ({what})"


def check_columns(path: Path, columns: Iterable[str], program: Program, cluster: str | None = None) -> None:
    """Check that a file's columns are the program's input fields, some left out, and ``custom_id`` where wanted.

    Args:
        path: The file's name.
        columns: Its columns.
        program: The program.
        cluster: A further column, which names a row's cluster; None for none.

    Raises:
        InvalidFile: If one is missing, unknown, or there twice.
    """
    counts = Counter(columns)
    fields = [field.name for field in program.signature.inputs]
    known = {*fields, CUSTOM_ID, *([cluster] if cluster else ())}
    if cluster and counts and cluster not in counts:
        raise InvalidFile(f"{path} has no column {cluster!r}, which --cluster names")
    missing = [f.name for f in program.signature.inputs if f.name not in counts and not f.may_be_left_out]
    unknown = [name for name in counts if name not in known and not is_index(name, program)]
    twice = sorted(name for name, count in counts.items() if count > 1)
    faults = [
        f"{what} {_named(names)}"
        for what, names in (("lacks", missing), ("has besides", unknown), ("repeats", twice))
        if names and counts
    ]
    if faults:
        hint = _hint_of_delimiter(list(counts))
        raise InvalidFile(
            f"{path}: {program.name} takes the columns {', '.join(fields)}; it {', and '.join(faults)}{hint}"
        )


def is_index(name: str, program: Program) -> bool:
    """Return True if a column is the row numbering that spreadsheets and data frames write beside the data."""
    is_numbering = name in _INDEX_NAMES or _PANDAS_INDEX.fullmatch(name) is not None
    return is_numbering and name not in {field.name for field in program.signature.inputs}


def _named(names: list[str]) -> str:
    shown = ", ".join(repr(name[:_NAME_CHARACTERS_SHOWN]) for name in names[:_MOST_NAMES_SHOWN])
    more = len(names) - _MOST_NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _hint_of_delimiter(columns: list[str]) -> str:
    if len(columns) != 1:
        return ""
    found = next((what for sign, what in _OTHER_DELIMITERS.items() if sign in columns[0]), "")
    return f"; its columns seem to be divided by {found}: save it with commas" if found else ""


class _Feed:
    """Feeds lines to a CSV reader as text, and keeps those of the current row."""

    def __init__(self, lines: Lines, max_bytes: int) -> None:
        self._lines = lines
        self._max_bytes = max_bytes
        self._again: deque[tuple[int, bytes | None]] = deque()
        self._row: list[tuple[int, bytes | None]] = []
        self._row_bytes = 0
        self._is_again = False
        self._broken: BrokenStream | None = None
        self.is_undecodable = False

    @property
    def first_line(self) -> int:
        """The number of the row's first line."""
        return self._row[0][0]

    @property
    def has_read(self) -> bool:
        """Return True if the row has a line."""
        return bool(self._row)

    def skip_blank(self) -> None:
        """Skip blank lines between two rows."""
        if not self._again:
            self._lines.skip_blank(_BLANK)

    def begin(self) -> None:
        """Begin a row."""
        self._row.clear()
        self._row_bytes = 0
        self.is_undecodable = False
        self._is_again = bool(self._again)

    def give_back_all_but_one(self) -> None:
        """Return the row's lines to the feed, except the first."""
        self._again.extendleft(reversed(self._row[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._again:
            number, line = self._again.popleft()
        else:
            line = self._next_line()
            number = self._lines.number
            if number == 1 and line is not None:
                line = line.removeprefix(_BOM)
        self._row.append((number, line))
        self._row_bytes += len(line or b"") + _BYTES_A_LINE
        is_endless = self._is_again and len(self._row) > _MOST_LINES_AGAIN
        if line is None or self._row_bytes > self._max_bytes or is_endless:
            raise TooLong
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.is_undecodable = True
            return line.decode(errors="replace")

    def _next_line(self) -> bytes | None:
        """Return the next line of the file; where it is broken, first have the lines of an open quote read as rows.

        Raises:
            csv.Error: If it is broken within a row.
            BrokenStream: If it is broken between two.
        """
        try:
            if self._broken is None:
                return next(self._lines)
        except BrokenStream as broken:
            self._broken = broken
        if self._row:
            raise csv.Error(_OPEN_QUOTE)
        raise self._broken
