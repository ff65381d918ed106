"""The input of a batch: a file of any known format, or standard input, read row by row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, get_args

from dspyq.batch.files.csv_rows import CsvRows
from dspyq.batch.files.parquet_rows import ParquetRows
from dspyq.batch.files.rows import Row, RowReader, faulty
from dspyq.batch.files.spool import digest_of, spool_if_streamed
from dspyq.batch.files.streams import BrokenStream, ByteStream, Compression, Lines, buffered, compression_of
from dspyq.config.programs import Program
from dspyq.errors import InvalidFile
from dspyq.store.kept_files import open_kept

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
_COMPRESSED: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
#: Encodings by their byte order mark, or by the first two ASCII letters.
_UTF_16 = re.compile(rb"\xff\xfe|\xfe\xff|[\x01-\x7f]\0[\x01-\x7f]\0|\0[\x01-\x7f]\0[\x01-\x7f]")
_PARQUET = b"PAR1"
#: The start of an array of rows; an array of anything else is one faulty row.
_JSON_ARRAY = re.compile(rb"\s*\[\s*(?:\{|\]?\s*\Z)")
_SNIFFED_BYTES = 4096
#: A row may be larger than its inputs: an escaped letter of two bytes takes six, and it has an id.
_ESCAPED, _BESIDE_BYTES = 3, 64 * 1024


def open_source(path: Path | None, *, spool: Path, format: str | None = None, tenant: str = "") -> Source:  # noqa: A002 - the option's name
    """Return the input of a batch.

    Args:
        path: The file; None for standard input. The spool itself stands for what was kept there.
        spool: Where standard input, or a pipe, is kept, so that a batch can be taken up again.
        format: ``jsonl``, ``csv`` or ``parquet``; by the file's suffix where left out, and by its first bytes in a
            spooled one.
        tenant: The tenant whose rows they are; empty for none.

    Raises:
        InvalidFile: If there is no such file, it cannot be read, or its format is unknown or another one.
    """
    if format is not None and format not in FORMATS:
        raise InvalidFile(f"there is no format {format!r}; use {', '.join(FORMATS)}")
    file = spool_if_streamed(path, spool, tenant)
    is_spooled = file == spool
    start = _start_of(file)
    compression = compression_of(start)
    suffixes = [suffix.lower() for suffix in file.suffixes] if not is_spooled else []
    stated = _COMPRESSED.get(suffixes[-1]) if suffixes else None
    if stated and stated != compression and start:
        raise InvalidFile(f"{file} is not {stated}, as its name states")
    head = _head(file, compression)
    found = next((name for name in FORMATS if name == format), None) or _format_of(
        file, suffixes, head, is_spooled=is_spooled
    )
    if (found == "parquet") != head.startswith(_PARQUET) and head:
        is_parquet = head.startswith(_PARQUET)
        raise InvalidFile(f"{file} is Parquet, not {found}" if is_parquet else f"{file} is not a Parquet file")
    if found == "parquet" and compression:
        raise InvalidFile(f"{file}: decompress it first; Parquet is compressed in itself")
    if _UTF_16.match(head):
        raise InvalidFile(f"{file} is UTF-16; save it as UTF-8")
    if found == "jsonl" and _JSON_ARRAY.match(head.removeprefix(_BOM)):
        named = "standard input" if is_spooled else f"{file}: the file"
        raise InvalidFile(f"{named} is a JSON array: write a line of JSON for each row, as jq -c '.[]' does")
    return Source(file, found, compression)


class Source:
    """A file of rows.

    Attributes:
        path: The file, or the spool of standard input.
        format: Its format, without the compression.
        compression: Its compression.
        size_bytes: Its size.
    """

    def __init__(self, path: Path, format: Format, compression: Compression | None) -> None:  # noqa: A002 - as above
        self.path = path
        self.format = format
        self.compression = compression
        self.size_bytes = path.stat().st_size
        self._bytes_read: Callable[[], int] = int

    @property
    def bytes_read(self) -> int:
        """Number of bytes read by the latest call of ``rows``, for progress."""
        return self._bytes_read()

    def digest(self) -> str:
        """Return the BLAKE3 hash of its bytes, 64 hexadecimal digits."""
        return digest_of(self.path)

    def rows(self, program: Program, cluster: str | None = None) -> Iterator[Row]:
        """Return its rows for a program, the bad ones too; memory does not grow with their number.

        Args:
            program: The program.
            cluster: The field that names a row's cluster, which may stand beside the inputs; None for none.

        Raises:
            InvalidFile: If the file as a whole does not fit, as when a column is missing.
        """
        if self.size_bytes == 0:
            return iter(())
        max_bytes = _ESCAPED * program.max_input_bytes + _BESIDE_BYTES
        if self.format == "parquet":
            parquet = ParquetRows(self.path, program, max_bytes, cluster)
            self._bytes_read = lambda: int(parquet.share_read * self.size_bytes)
            return iter(parquet)
        stream = ByteStream(self.path, self.compression)
        self._bytes_read = lambda: self.size_bytes if stream.closed else stream.bytes_read
        lines = Lines(buffered(stream), max_bytes)
        if self.format == "csv":
            try:
                rows = iter(CsvRows(self.path, lines, program, max_bytes, cluster))
            except BrokenStream as broken:
                raise InvalidFile(f"{self.path}: {broken}, within its header") from None
        else:
            rows = _json_rows(lines, RowReader(program, cluster), max_bytes)
        return _until_broken(rows, stream)


def _json_rows(lines: Lines, reader: RowReader, max_bytes: int) -> Iterator[Row]:
    number = 0
    from_json = reader.from_json
    for line in lines:
        if line is None:
            number += 1
            yield faulty(number, lines.number, "RowTooLarge", f"larger than {max_bytes:,} bytes")
            continue
        text = line.removeprefix(_BOM) if lines.number == 1 else line
        if text.isspace() or not text:
            lines.skip_blank(_BLANK)
        else:
            number += 1
            yield from_json(text, number, lines.number)


def _until_broken(rows: Iterator[Row], stream: ByteStream) -> Iterator[Row]:
    """Yield the rows; if they cannot be read further, yield a faulty row last."""
    row = Row(0, "", None, None, 0)
    try:
        for row in rows:
            yield row
    except BrokenStream as broken:
        line = (row.line or 0) + 1
        yield faulty(row.number + 1, line, "BrokenFile", f"{broken}: this row and those after it are lost")
    finally:
        stream.close()


def _start_of(path: Path) -> bytes:
    if path.is_dir():
        raise InvalidFile(f"{path} is a directory, not a file of rows")
    try:
        with open_kept(path) as file:
            return file.read(_SNIFFED_BYTES)
    except FileNotFoundError:
        raise InvalidFile(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidFile(f"cannot read {path}: {error.strerror}") from None


def _head(path: Path, compression: Compression | None) -> bytes:
    """Return the first bytes, decompressed."""
    with ByteStream(path, compression) as stream:
        head = b""
        with suppress(BrokenStream):
            while len(head) < _SNIFFED_BYTES and (piece := stream.read(_SNIFFED_BYTES)):
                head += piece
        return head[:_SNIFFED_BYTES]


def _format_of(file: Path, suffixes: list[str], head: bytes, *, is_spooled: bool) -> Format:
    if not is_spooled:
        named = [suffix for suffix in suffixes if suffix not in _COMPRESSED]
        found = _SUFFIXES.get(named[-1]) if named else None
        if found is None:
            raise InvalidFile(f"the name of {file} does not show its format; use --format {', '.join(FORMATS)}")
        return found
    text = head.removeprefix(_BOM).lstrip()
    if text.startswith(b"["):
        raise InvalidFile("standard input is one JSON array; send a line of JSON for each row")
    if head.startswith(_PARQUET):
        return "parquet"
    return "jsonl" if text.startswith(b"{") or not text else "csv"
