"""One process at a time in a folder; the kernel lets the next one in when that process ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone_in(folder: Path, *, waits: bool) -> Iterator[None]:
    """Hold a folder, which is made where it is missing.

    Args:
        folder: The folder.
        waits: Whether to wait for another process to leave it.

    Raises:
        BlockingIOError: If another process holds it and ``waits`` is false.
        OSError: If it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
