"""Jobs that a thread makes by Celery's way of sending, and keeps; apart from the transport, which is loaded to send."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from dspyq.delivery.records import QueuedJob

_kept: ContextVar[list[QueuedJob] | None] = ContextVar("_kept", default=None)


@contextlib.contextmanager
def jobs_kept() -> Iterator[list[QueuedJob]]:
    """Collect the jobs that this thread publishes, instead of storing them."""
    kept: list[QueuedJob] = []
    token = _kept.set(kept)
    try:
        yield kept
    finally:
        _kept.reset(token)


def kept_jobs() -> list[QueuedJob] | None:
    """Return the list that takes this thread's jobs; None where they are stored."""
    return _kept.get()
