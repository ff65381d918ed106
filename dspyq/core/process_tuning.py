"""Tuning of long-running processes: the C library's memory for each thread, and Python's garbage collector."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

#: Predictions and rows leave few cycles; at Python's default of 700 the collector runs ten times in each call.
_COLLECT_AFTER_OBJECTS = 10_000
#: glibc's number for the most heaps that threads are spread over: 16 for two cores, each with free room of its own. Of
#: Python's threads one runs at a time.
_M_ARENA_MAX, _HEAPS = -8, 2


def share_heaps() -> None:
    """Let all threads allocate from a few heaps; before they are started."""
    _call_glibc("mallopt", _M_ARENA_MAX, _HEAPS)


def settle() -> None:
    """Exempt everything loaded so far from garbage collection, and return free memory to the system."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
    _call_glibc("malloc_trim", 0)


def _call_glibc(name: str, *arguments: int) -> None:
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)  # other C libraries have none
    if function is not None:
        function(*arguments)
