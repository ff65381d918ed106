"""Last lines of a log."""

from __future__ import annotations

import os
from typing import IO

_TAIL_BYTES = 16 * 1024


def last_lines(log: IO[bytes], count: int) -> list[str]:
    """Return the last non-empty lines of a log."""
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - _TAIL_BYTES))
    lines = log.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]
