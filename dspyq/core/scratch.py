"""A temporary folder for one process; the next process removes the folder of a killed one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def scratch_folder(name: str = "scratch", *, kept_after: tuple[type[BaseException], ...] = ()) -> Iterator[Path]:
    """Make a temporary folder and remove it afterwards, with those left by this user's killed processes.

    Its process holds a lock on it, which the kernel frees when that process ends.

    Args:
        name: Its purpose; folders of other names are left alone.
        kept_after: The errors after which it stays until the next of its name is made, to be looked at.

    Raises:
        OSError: If it cannot be made.
    """
    prefix = f"dspyq-{name}-"
    _remove_abandoned(prefix)
    folder, lock = _make(prefix)
    is_kept = False
    try:
        yield folder
    except kept_after:
        is_kept = True
        raise
    finally:
        if not is_kept:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        with suppress(FileNotFoundError):  # another process may find it before it is locked, and remove it
            lock = _open(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _remove_abandoned(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # another user's, in use, or removed meanwhile
            lock = _open(folder)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
