"""Files with users' content, sealed in pieces where content is sealed, and read from any place on.

Such a file is a mark, the file's random name, and pieces of one size, the last one shorter; each is content of its
own, which belongs to the file, its number, and whether it is the last. So no piece can be changed, moved, or cut off.
Where content is not sealed, the file holds the bytes as they are.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dspyq.core.private import open_private
from dspyq.errors import InvalidFile
from dspyq.sealing.keyring import OVERHEAD_BYTES, is_envelope
from dspyq.store import content

_MARK = b"dqf1"
_NAME_BYTES = 16
_HEAD_BYTES = len(_MARK) + _NAME_BYTES
#: Of a piece, before it is sealed.
PIECE_BYTES = 64 * 1024
_STORED_BYTES = PIECE_BYTES + OVERHEAD_BYTES


def write_kept(path: Path, pieces: Iterator[bytes], *, tenant: str = "") -> None:
    """Write a file and have it on disk when this returns.

    Args:
        path: The file.
        pieces: Its bytes, in pieces of any size.
        tenant: The tenant that it belongs to; empty for none.

    Raises:
        OSError: If it cannot be written.
    """
    with open(path, "wb", opener=open_private) as file:
        name = os.urandom(_NAME_BYTES)
        if not is_envelope(content.encode(content.Kind.SPOOL, "", b"")):
            file.writelines(pieces)
        else:
            file.write(_MARK + name)
            file.writelines(_sealed(name, pieces, tenant))
        file.flush()
        os.fsync(file.fileno())


def open_kept(path: Path) -> io.RawIOBase:
    """Open a file that may be sealed, for reading, unbuffered.

    Raises:
        OSError: If it cannot be read.
    """
    file = io.FileIO(path)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if not head.startswith(_MARK) or len(head) < _HEAD_BYTES:
        return file
    return SealedPieces(file, path, head[len(_MARK) :])


def is_kept_sealed(path: Path) -> bool:
    """Return True if a file is sealed."""
    with path.open("rb") as file:
        return file.read(len(_MARK)) == _MARK


class SealedPieces(io.RawIOBase):
    """The bytes of a sealed file.

    Args:
        file: The file itself.
        path: Its path, for errors.
        name: The name in its head.
    """

    def __init__(self, file: io.FileIO, path: Path, name: bytes) -> None:
        self._file = file
        self._path = path
        self._name = name
        stored_bytes = os.fstat(file.fileno()).st_size - _HEAD_BYTES
        self._last = max(0, (stored_bytes - 1) // _STORED_BYTES)
        self._size = max(0, stored_bytes - (self._last + 1) * OVERHEAD_BYTES)
        self._position = 0
        self._number = -1
        self._piece = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, in bytes of what was sealed."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read some bytes.

        Raises:
            InvalidFile: If a piece was changed, moved or cut off, or its key is not here.
        """
        number, begin = divmod(self._position, PIECE_BYTES)
        if number > self._last:
            return 0
        if number != self._number:
            self._number, self._piece = number, self._open(number)
        found = self._piece[begin : begin + len(buffer)]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _open(self, number: int) -> bytes:
        self._file.seek(_HEAD_BYTES + number * _STORED_BYTES)
        stored = self._file.read(_STORED_BYTES) or b""
        try:
            return content.decode(content.Kind.SPOOL, _owner(self._name, number, is_last=number == self._last), stored)
        except content.UnreadableContent as error:
            raise InvalidFile(f"{self._path} cannot be read: {error}") from None


def _sealed(name: bytes, pieces: Iterator[bytes], tenant: str) -> Iterator[bytes]:
    number, held = 0, b""
    for piece in pieces:
        held += piece
        while len(held) > PIECE_BYTES:
            owner = _owner(name, number, is_last=False)
            yield content.encode(content.Kind.SPOOL, owner, held[:PIECE_BYTES], tenant=tenant)
            held, number = held[PIECE_BYTES:], number + 1
    yield content.encode(content.Kind.SPOOL, _owner(name, number, is_last=True), held, tenant=tenant)


def _owner(name: bytes, number: int, *, is_last: bool) -> str:
    return f"{name.hex()}\0{number}\0{'last' if is_last else 'more'}"
