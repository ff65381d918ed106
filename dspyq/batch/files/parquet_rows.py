"""Rows of a Parquet file, some hundred at a time, so that memory does not grow with the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspyq.batch.files.csv_rows import check_columns
from dspyq.batch.files.rows import INPUTS, Row, RowReader
from dspyq.batch.files.streams import BrokenStream
from dspyq.config.models import Program
from dspyq.errors import InvalidFile

_BATCH_ROWS = 500
_BUFFER_BYTES = 256 * 1024


class ParquetRows:
    """The rows of a Parquet file.

    Args:
        path: The file.
        program: Whose input fields its columns are; a column ``inputs`` holds them as a struct.

    Raises:
        InvalidFile: If pyarrow is not installed, the file is no Parquet, or lacks a column.
    """

    def __init__(self, path: Path, program: Program) -> None:
        arrow, parquet = _load(path)
        self._errors: tuple[type[Exception], ...] = (arrow.ArrowException, OSError)
        try:
            # Read as it is needed: by default pyarrow fetches whole row groups, of whatever size those are.
            self._file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except self._errors as error:
            raise InvalidFile(f"{path} is not a Parquet file that can be read ({type(error).__name__})") from None
        self._reader = RowReader(program)
        self.rows_read = 0
        columns = self._file.schema_arrow.names
        if INPUTS not in columns or any(field.name == INPUTS for field in program.signature.inputs):
            check_columns(path, columns, program)

    @property
    def share_read(self) -> float:
        """How much of the file was read, 0 to 1."""
        total: int = self._file.metadata.num_rows
        return self.rows_read / total if total else 1.0

    def __iter__(self) -> Iterator[Row]:
        """Return the rows.

        Raises:
            BrokenStream: If a part of the file cannot be read.
        """
        for value in self._values():
            self.rows_read += 1
            yield self._reader.from_object(value, self.rows_read, None)

    def _values(self) -> Iterator[Any]:
        try:
            for batch in self._file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
                yield from batch.to_pylist()
        except self._errors as error:
            raise BrokenStream(f"the Parquet file is damaged ({type(error).__name__})") from None


def _load(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: PLC0415 - an extra, large, and only for such files
        import pyarrow.parquet  # noqa: PLC0415 - as above
    except ImportError:
        raise InvalidFile(
            f"cannot read {path}: Parquet needs the batch extra; run: pip install 'dspyq[batch]'"
        ) from None
    return pyarrow, pyarrow.parquet
