"""Exclusive use of a folder by one process; the kernel releases it whenever that process ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dspyq.core.private import open_private


@contextmanager
def alone_in(folder: Path, *, waits: bool) -> Iterator[None]:
    """Hold a folder, created if missing.

    Args:
        folder: The folder.
        waits: Whether to wait for another process to leave it.

    Raises:
        BlockingIOError: If another process holds it and ``waits`` is false.
        OSError: If it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", opener=open_private) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
