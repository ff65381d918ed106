"""Spool of standard input and pipes into a file, so that a resumed batch finds its rows."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from dspyq.errors import InvalidFile
from dspyq.store.kept_files import open_kept, write_kept

_PIECE_BYTES = 1024 * 1024


def spool_if_streamed(path: Path | None, spool: Path, tenant: str = "") -> Path:
    """Return the file to read: the path itself, or the spool of a stream.

    A complete spool of an earlier run is used again if the stream is empty or the same.

    Args:
        path: A file, a pipe, or None for standard input.
        spool: The file in which a stream is kept.
        tenant: The tenant whose rows they are; empty for none.

    Raises:
        InvalidFile: If the stream is empty and no spool exists, or it differs from the spool.
    """
    if path is None:
        is_sent = not sys.stdin.buffer.isatty()
        return _spool(sys.stdin.buffer if is_sent else None, spool, tenant)
    try:
        is_pipe = stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return path  # opening it reports the error
    if not is_pipe:
        return path
    with path.open("rb") as pipe:
        return _spool(pipe, spool, tenant)


def _spool(stream: BinaryIO | None, spool: Path, tenant: str) -> Path:
    if stream is None:
        if not spool.exists():
            raise InvalidFile("no rows: standard input is a terminal; name a file, or send the rows to standard input")
        return spool
    unfinished = spool.with_name(f"{spool.name}.unfinished")
    try:
        digest, size_bytes = _write(stream, unfinished, tenant)
        if not spool.exists() or (size_bytes and digest_of(spool) == digest):
            unfinished.replace(spool)
            sync_folder(spool.parent)
        elif size_bytes:
            raise InvalidFile(
                f"standard input is not what {spool} keeps of an earlier run; remove that file to begin anew"
            )
    except OSError as error:
        raise InvalidFile(f"cannot keep standard input in {unfinished}: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return spool


def _write(stream: BinaryIO, path: Path, tenant: str) -> tuple[str, int]:
    hasher, size_bytes = blake3(), 0

    def pieces() -> Iterator[bytes]:
        nonlocal size_bytes
        while piece := stream.read(_PIECE_BYTES):
            hasher.update(piece)
            size_bytes += len(piece)
            yield piece

    write_kept(path, pieces(), tenant=tenant)
    return hasher.hexdigest(), size_bytes


def digest_of(path: Path) -> str:
    """Return the BLAKE3 hash of a file's bytes, of those that were sealed if it is; 64 hexadecimal digits.

    Raises:
        OSError: If it cannot be read.
        InvalidFile: If it is sealed and cannot be opened.
    """
    with open_kept(path) as file:
        hasher = blake3()
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename durable: it is part of the folder's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
