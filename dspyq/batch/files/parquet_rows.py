"""Rows of a Parquet file, some hundred at a time, so that memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from dspyq.batch.files.csv_rows import check_columns, is_index
from dspyq.batch.files.parquet_sizes import group_bytes, size_of, text_columns
from dspyq.batch.files.rows import INPUTS, Row, RowReader, faulty
from dspyq.config.programs import Program
from dspyq.errors import InvalidFile
from dspyq.store.kept_files import is_kept_sealed, open_kept

_BATCH_ROWS = 500
_BATCH_BYTES = 32 * 1024 * 1024
_BUFFER_BYTES = 256 * 1024
#: Where a group is read again up to its damage, row by row if it can be; more would take too long.
_MOST_BATCHES_AGAIN = 100_000


class ParquetRows:
    """The rows of a Parquet file.

    Args:
        path: The file.
        program: The program whose input fields are the columns; a column ``inputs`` holds them as a struct.
        max_bytes: The most bytes of a row.
        cluster: A further column, which names a row's cluster; None for none.

    Raises:
        InvalidFile: If pyarrow is not installed, the file is no Parquet, or lacks a column.
    """

    def __init__(self, path: Path, program: Program, max_bytes: int, cluster: str | None = None) -> None:
        arrow, parquet = _load(path)
        self._errors: tuple[type[Exception], ...] = (arrow.ArrowException, OSError)
        try:
            # Read as it is needed: by default pyarrow fetches whole row groups, of whatever size those are.
            options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False, "page_checksum_verification": True}
            source = open_kept(path) if is_kept_sealed(path) else path
            self._file = parquet.ParquetFile(source, **options)
            # A text repeated in every row takes memory once.
            self._file = parquet.ParquetFile(source, read_dictionary=text_columns(self._file), **options)
        except self._errors as error:
            raise InvalidFile(f"{path} is not a Parquet file that can be read ({type(error).__name__})") from None
        self._reader = RowReader(program, cluster)
        self._max_bytes = max_bytes
        self.rows_read = 0
        columns = self._file.schema_arrow.names
        self._columns = [name for name in columns if not is_index(name, program)]
        self._fields = {field.name: field.type_text for field in program.signature.inputs}
        self._of_nanoseconds = {field.name for field in self._file.schema_arrow if "[ns" in str(field.type)}
        if INPUTS not in columns or any(field.name == INPUTS for field in program.signature.inputs):
            check_columns(path, columns, program, cluster)

    @property
    def share_read(self) -> float:
        """Share of the file that was read, 0 to 1."""
        total: int = self._file.metadata.num_rows
        return self.rows_read / total if total else 1.0

    def __iter__(self) -> Iterator[Row]:
        """Return the rows; those that are damaged, or stand behind damage in their row group, as faulty ones."""
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        bytes_a_row = max((group_bytes(group) / max(group.num_rows, 1) for group in groups), default=1)
        most_rows = int(max(1, min(_BATCH_ROWS, _BATCH_BYTES / max(bytes_a_row, 1))))
        end = 0
        for number, group in enumerate(groups):
            begin, end = end, end + group.num_rows
            damage = "it ends early"
            try:
                yield from self._group(number, most_rows)
            except self._errors as error:
                damage = type(error).__name__
                with suppress(*self._errors):  # the batch that failed may begin with good rows
                    yield from self._group(number, max(1, (self.rows_read - begin) // _MOST_BATCHES_AGAIN), begin)
            while self.rows_read < end:
                self.rows_read += 1
                message = f"the Parquet file is damaged here, or before in this row group ({damage})"
                yield faulty(self.rows_read, None, "BrokenFile", message)

    def _group(self, number: int, most_rows: int, begin: int | None = None) -> Iterator[Row]:
        """Yield the rows of a group, so many read at a time.

        Args:
            number: The group.
            most_rows: How many are read at a time.
            begin: How many rows are before the group, where some of its own were read already, and are passed over.
        """
        passed = 0 if begin is None else self.rows_read - begin
        options = {"row_groups": [number], "columns": self._columns, "use_threads": False}
        for batch in self._file.iter_batches(batch_size=most_rows, **options):
            first = min(passed, batch.num_rows)
            passed -= first
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            may_be_large = first < batch.num_rows and sum(map(size_of, batch.columns)) > self._max_bytes
            for index in range(first, batch.num_rows):
                self.rows_read += 1
                if may_be_large and sum(size_of(column.slice(index, 1)) for column in batch.columns) > self._max_bytes:
                    yield faulty(self.rows_read, None, "RowTooLarge", f"larger than {self._max_bytes:,} bytes")
                else:
                    yield self._row(columns, index)

    def _row(self, columns: dict[str, Any], index: int) -> Row:
        values: dict[str, Any] = {}
        for name, column in columns.items():
            try:
                value = column[index].as_py(maps_as_pydicts="strict")
                if name in self._of_nanoseconds:
                    value = without_pandas(value)
                values[name] = _as_stated(value, self._fields.get(name))
            except Exception as error:  # noqa: BLE001 - a column may hold what Python has no value for
                message = f"{name} holds a value that cannot be read ({type(error).__name__})"
                return faulty(self.rows_read, None, "InvalidInputs", message)
        return self._reader.from_object(values, self.rows_read, None)


def without_pandas(value: Any) -> Any:
    """Return a value with Python's own moments and durations, though pyarrow gives those of pandas where it finds it.

    Raises:
        ValueError: If one has a fraction below a microsecond, as pyarrow raises without pandas.
    """
    if isinstance(value, list):
        return [without_pandas(part) for part in value]
    if isinstance(value, dict):
        return {without_pandas(key): without_pandas(part) for key, part in value.items()}
    made: Any = value
    if not isinstance(value, datetime | timedelta) or type(value) in {datetime, timedelta}:
        return value
    if made.nanosecond if isinstance(value, datetime) else made.nanoseconds:
        raise ValueError("a fraction below a microsecond")
    return made.to_pydatetime() if isinstance(value, datetime) else made.to_pytimedelta()


_WHOLE = frozenset({"int", "int | None", "Optional[int]"})
_FLOATING = frozenset({"float", "float | None", "Optional[float]"})


def _as_stated(value: Any, type_text: str | None) -> Any:
    """Return a number as the field's type writes it: a whole float of an int field, a decimal of a float field."""
    if type_text in _WHOLE and isinstance(value, (float, Decimal)) and value == value // 1:
        return int(value)
    if type_text in _FLOATING and isinstance(value, Decimal):
        return float(value)
    return value


def _load(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415 - an extra, large, and only for such files
        import pyarrow.parquet  # noqa: PLC0415 - as above
    except ImportError:
        raise InvalidFile(
            f"cannot read {path}: Parquet needs the batch extra; run: pip install 'dspyq[batch]'"
        ) from None
    return pyarrow, pyarrow.parquet
