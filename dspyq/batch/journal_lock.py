"""The lock on a journal: one process works on an output at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from dspyq.core.private import open_private
from dspyq.errors import BatchRefused, OutputInUse


def lock_journal(path: Path) -> int:
    """Open a file and lock it.

    Raises:
        BatchRefused: If another process holds it, which is named, or it cannot be opened.
    """
    try:
        lock = open_private(path, os.O_RDWR | os.O_CREAT)  # SQLite's files beside it get its mode
    except OSError as error:
        raise BatchRefused(f"{path} cannot be written: {error.strerror}; choose another --output") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise OutputInUse(f"another process works on this output{_holder(path)}: wait for it, or stop it") from None
    return lock


def _holder(path: Path) -> str:
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        facts = dict(database.execute("SELECT name, value FROM meta WHERE name IN ('host', 'pid')"))
        database.close()
    except sqlite3.Error:  # it has only just started
        return ""
    return f" (process {facts['pid']} on {facts['host']})" if len(facts) == 2 else ""  # noqa: PLR2004 - both
