"""Standard input and pipes are kept in a file first: a batch that is taken up again must find its rows."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from dspyq.errors import InvalidFile

_PIECE_BYTES = 1024 * 1024


def spool_if_streamed(path: Path | None, spool: Path) -> Path:
    """Return the file to read: the path itself, or where what streams through it is kept.

    A spool that an earlier run finished serves again, where nothing is sent this time or the same bytes are.

    Args:
        path: A file, a pipe, or None for standard input.
        spool: Where to keep what streams.

    Raises:
        InvalidFile: If nothing streams and nothing is kept, or it differs from what is kept.
    """
    if path is None:
        is_sent = not sys.stdin.buffer.isatty()
        return _spool(sys.stdin.buffer if is_sent else None, spool)
    try:
        is_pipe = stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return path  # told by whoever opens it
    if not is_pipe:
        return path
    with path.open("rb") as pipe:
        return _spool(pipe, spool)


def _spool(stream: BinaryIO | None, spool: Path) -> Path:
    if stream is None:
        if not spool.exists():
            raise InvalidFile("no rows: standard input is a terminal; name a file, or send the rows to standard input")
        return spool
    unfinished = spool.with_name(f"{spool.name}.unfinished")
    try:
        digest, size_bytes = _write(stream, unfinished)
        if not spool.exists() or (size_bytes and _digest(spool) == digest):
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


def _write(stream: BinaryIO, path: Path) -> tuple[str, int]:
    hasher, size_bytes = blake3(), 0
    with path.open("wb") as file:
        while piece := stream.read(_PIECE_BYTES):
            file.write(piece)
            hasher.update(piece)
            size_bytes += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return hasher.hexdigest(), size_bytes


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        hasher = blake3()
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
    return hasher.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename last: it is the folder's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
