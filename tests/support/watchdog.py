"""Kills the test run's processes if the run itself is killed.

One small process per run reads the ids of process groups from its standard input, ``+<id>`` and ``-<id>``, a line
each. When the run ends in any way, SIGKILL included, the input closes, and what is still noted is killed. (Linux's
parent-death signal would do too, but follows the thread that started the child, not the process.)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from typing import IO


def watch(lines: Iterable[str]) -> None:
    """Note process groups until the input ends, then kill those that are left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    noted: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            noted.add(group)
        else:
            noted.discard(group)
    for group in noted:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def tie(group_id: int) -> None:
    """Have a process group killed when this process ends."""
    _tell(f"+{group_id}\n")


def untie(group_id: int) -> None:
    """Forget a process group that has ended: its id may be given to others."""
    _tell(f"-{group_id}\n")


@functools.cache
def _input(_pid: int) -> IO[str]:
    # Keyed by process id: a fork of this process must not share its parent's watchdog.
    process = subprocess.Popen(
        [sys.executable, "-S", __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin
    atexit.register(process.stdin.close)  # as this process's end would, without a warning
    return process.stdin


def _tell(line: str) -> None:
    stream = _input(os.getpid())
    stream.write(line)
    stream.flush()


if __name__ == "__main__":
    watch(sys.stdin)
