"""Tolerated faults of a process: counted by kind and logged, so that no thread ends because of them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from dspyq.core.events import Event

logger = logging.getLogger("dspyq.tolerated")

ToleratedKind = Literal[
    "access_log", "adoptions_thread", "batch_thread", "cache_size_thread", "callback", "cancelled",
    "door_thread", "endpoints_thread", "experiment_hits",
    "experiment_look", "experiment_row", "experiment_scores", "experiment_state",
    "experiment_token", "health_thread", "invalidation",
    "invalidations_thread", "lane_thread", "list_item", "log_thread", "loki_thread", "progress_thread",
    "quiet_queues_thread",
    "referee_thread", "reply", "result", "results_thread", "shutdown_thread", "snapshot",
    "spine_away",
    "stream", "streams_thread",
]  # fmt: skip
KINDS: Final[tuple[ToleratedKind, ...]] = ToleratedKind.__args__  # type: ignore[attr-defined]  # typing has no public way to list them

#: Redis counts in 64 bits.
_TOO_LARGE = 2**63

_lock = threading.Lock()
_counts: Counter[ToleratedKind] = Counter()


def tolerate(kind: ToleratedKind, error: BaseException | str, *, is_fault: bool = False) -> None:
    """Count a fault, and log it without its text, which may quote a user.

    Args:
        kind: The place of the fault.
        error: The error, or a word for it.
        is_fault: Whether to log where in the code it was raised, as it may be a bug of ours.
    """
    with _lock:
        _counts[kind] += 1
    name = error if isinstance(error, str) else type(error).__name__
    trace = error if is_fault and isinstance(error, BaseException) else None
    logger.warning(Event("fault_survived", kind=kind, error=name), exc_info=trace)


def tolerated(kind: ToleratedKind) -> int:
    """Return the number of these faults in this process."""
    with _lock:
        return _counts[kind]


def read_number(field: bytes | str | None) -> float:
    """Read a number as stored in Redis; 0 if it is missing or is no number."""
    for read in (int, float):
        try:
            number = read(field or 0)
        except ValueError:
            continue
        if abs(number) < _TOO_LARGE:  # NaN fails every comparison
            return number
    tolerate("snapshot", "no_number")
    return 0


def read_text(field: bytes) -> str:
    """Read a text as stored in Redis, with invalid UTF-8 replaced."""
    return field.decode(errors="replace")


@contextmanager
def survived(kind: ToleratedKind) -> Iterator[None]:
    """Tolerate any ``Exception`` of the block: other threads depend on the thread that runs it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the next round may succeed
        tolerate(kind, error, is_fault=True)
