"""The bytes of an input: plain, gzip or zstd, and their lines, of which none takes more memory than it may."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from dspyq.errors import InvalidFile

Compression = Literal["gzip", "zstd"]

MAGIC_BYTES = 4
_MAGIC: dict[bytes, Compression] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER_BYTES = 256 * 1024


class BrokenStream(Exception):
    """The bytes end early, or do not decompress; what came before is good."""


class ByteStream(io.RawIOBase):
    """The bytes of a file, decompressed.

    Args:
        path: The file.
        compression: What it is compressed with.

    Raises:
        InvalidFile: If it cannot be opened, or what decompresses it is not installed.
    """

    def __init__(self, path: Path, compression: Compression | None) -> None:
        self._file = io.FileIO(path)
        self._plain: Any = self._file
        self._name = compression or "file"
        self._broken: tuple[type[Exception], ...] = ()
        if compression == "gzip":
            self._plain = gzip.GzipFile(fileobj=self._file)
            self._broken = (EOFError, gzip.BadGzipFile, zlib.error)
        elif compression == "zstd":
            zstd = _zstd(path)
            self._plain = zstd.ZstdFile(self._file)
            self._broken = (EOFError, zstd.ZstdError)
        self._read: Callable[[int], bytes] = self._file.read if compression is None else self._plain.read1

    @property
    def bytes_read(self) -> int:
        """How far the file itself was read."""
        return self._file.tell()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes.

        Raises:
            BrokenStream: If the compressed bytes end early or are damaged.
        """
        # Not more than one read of what is compressed: what it gave before it broke must not be lost.
        try:
            piece = self._read(len(buffer))
        except self._broken as error:
            ends = isinstance(error, EOFError)
            raise BrokenStream(f"the {self._name} stream {'ends early' if ends else 'is damaged'}") from None
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._plain.close()
            self._file.close()
        super().close()


def compression_of(start: bytes) -> Compression | None:
    """Return what bytes are compressed with, by their first ones."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def buffered(stream: ByteStream) -> io.BufferedReader:
    """Return a stream to read lines of."""
    return io.BufferedReader(stream, _BUFFER_BYTES)


def bounded_lines(file: io.BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """Return the lines of a file, and None in place of each that is longer than it may be."""
    readline = file.readline
    while line := readline(max_bytes + 1):
        if len(line) > max_bytes and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = readline(max_bytes)
            yield None
        else:
            yield line


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
