"""Bytes of an input, plain, gzip or zstd, and their lines in bounded memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dspyq.errors import InvalidFile
from dspyq.store.kept_files import open_kept

Compression = Literal["gzip", "zstd"]

_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER_BYTES = 256 * 1024


class BrokenStream(Exception):
    """The bytes end early, or do not decompress; what came before is good."""


class ByteStream(io.RawIOBase):
    """The bytes of a file, decompressed.

    Args:
        path: The file.
        compression: Its compression.

    Raises:
        InvalidFile: If it cannot be opened, or its decompressor is not installed.
    """

    def __init__(self, path: Path, compression: Compression | None) -> None:
        self._file = open_kept(path)
        self._name = compression or "file"
        self._plain: Any
        self._open: Callable[[], Any] = lambda: self._file
        self._broken: tuple[type[Exception], ...] = (OSError,)  # of the disk, or of a share
        if compression == "gzip":
            self._open = lambda: gzip.GzipFile(fileobj=self._file)
            self._broken = (OSError, EOFError, zlib.error)
        elif compression == "zstd":
            zstd = _zstd(path)
            self._open = lambda: zstd.ZstdFile(self._file)
            self._broken = (OSError, EOFError, zstd.ZstdError)
        self._plain = self._open()
        self._read: Callable[[int], bytes] = self._plain.read1 if compression else self._file.read
        self._position = 0
        self._is_torn = False

    @property
    def bytes_read(self) -> int:
        """Position in the file itself."""
        return self._file.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes.

        Raises:
            BrokenStream: If the compressed bytes end early or are damaged.
        """
        # Not more than one read of what is compressed: what it gave before it broke must not be lost.
        try:
            piece = self._read(1 if self._is_torn else len(buffer))
        except self._broken as error:
            if not self._is_torn and self._plain is not self._file:
                return self._begin_anew(buffer)
            ends = isinstance(error, EOFError)
            raise BrokenStream(f"the {self._name} stream {'ends early' if ends else 'is damaged'}") from None
        self._position += len(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def _begin_anew(self, buffer: Any) -> int:
        """Read up to here again and then byte by byte: the read that failed has dropped what was good in it."""
        self._is_torn = True
        self._file.seek(0)
        self._plain = self._open()
        self._read = self._plain.read1
        left = self._position
        try:
            while left:
                left -= len(self._read(min(left, _BUFFER_BYTES))) or left
        except self._broken:
            raise BrokenStream(f"the {self._name} stream is damaged") from None
        return self.readinto(buffer)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._plain.close()
            self._file.close()
        super().close()


def compression_of(start: bytes) -> Compression | None:
    """Return the compression of bytes, by their first ones."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def buffered(stream: ByteStream) -> io.BufferedReader:
    """Return a buffered stream for reading lines."""
    return io.BufferedReader(stream, _BUFFER_BYTES)


class Lines:
    """The lines of a file: an iterator that gives None in place of each that is longer than it may be.

    Args:
        file: The file.
        max_bytes: The most bytes of a line.

    Attributes:
        number: The number of the latest line, from 1.
    """

    def __init__(self, file: io.BufferedReader, max_bytes: int) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self.number = 0

    def __iter__(self) -> Lines:
        """Return itself."""
        return self

    def __next__(self) -> bytes | None:
        """Read the next line."""
        readline, most = self._file.readline, self._max_bytes
        line = readline(most + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) <= most or line.endswith(b"\n"):
            return line
        while line and not line.endswith(b"\n"):
            line = readline(most)
        return None

    def skip_blank(self, blank: bytes) -> None:
        """Skip following lines that consist of these bytes only, many at a time."""
        while piece := self._file.peek(1):
            is_all = not piece.translate(None, blank)  # ten times as fast as stripping
            run = piece if is_all else piece[: len(piece) - len(piece.lstrip(blank))]
            end = run.rfind(b"\n") + 1
            self._file.read(end)
            self.number += run.count(b"\n")
            if end < len(piece):
                return


def _zstd(path: Path) -> Any:
    if find_spec("compression"):  # Python's own, from 3.14 on
        from compression import zstd  # noqa: PLC0415 - as below
    else:
        try:
            from backports import zstd  # noqa: PLC0415 - an extra, and only for such files
        except ImportError:
            raise InvalidFile(
                f"cannot read {path}: zstd needs the batch extra; run: pip install 'dspyq[batch]'"
            ) from None
    return zstd
