"""Streams of a worker's runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dspyq.cache.claim import Run
from dspyq.guards.ledger import Ledger
from dspyq.programs.tap import Tap
from dspyq.streaming.flusher import process_flusher


@contextmanager
def streamed(ledger: Ledger, run: Run, tenant: str = "", *, is_wanted: bool) -> Iterator[None]:
    """Stream the text of a run within the block, all of it before the run's answer is stored.

    Args:
        ledger: The run's ledger.
        run: The run.
        tenant: The tenant whose question it is; empty for none.
        is_wanted: Whether any caller has it streamed; else nothing is done.
    """
    if not is_wanted:
        yield
        return
    log = process_flusher().begin(run.task_id, run.fence, tenant)
    ledger.tap = Tap(log)
    try:
        yield
    finally:
        process_flusher().end(log)
