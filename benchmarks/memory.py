"""The memory of a worker with two hundred threads, and whether it grows with what it has answered."""

from __future__ import annotations

from benchmarks.contenders import DSPYQ
from benchmarks.harness import CONCURRENCY, Servers, resident_mebibytes
from benchmarks.rows import Row, Target

_PATH = f"memory, {CONCURRENCY} threads"
_CHECKPOINTS = (2_000, 5_000, 10_000, 20_000)
_QUICK_CHECKPOINTS = (200, 300, 400, 500)
_BATCH = 1_000
_LIMIT_MEBIBYTES = 150
#: Growth from the second checkpoint to the last that is taken for the allocator's noise.
_FLAT_MEBIBYTES = 3


def run(*, quick: bool) -> list[Row]:
    """Let a worker answer, and look at its memory at each checkpoint."""
    checkpoints = _QUICK_CHECKPOINTS if quick else _CHECKPOINTS
    at: dict[int, float] = {}
    with Servers() as servers, servers.worker(DSPYQ) as worker:
        answered = 0
        for checkpoint in checkpoints:
            while answered < checkpoint:
                count = min(_BATCH, checkpoint - answered)
                keys = servers.ask(DSPYQ, count, f"batch {answered}")
                servers.wait_for_results(keys)
                answered += count
            at[checkpoint] = resident_mebibytes(worker.pid)
    rows = [Row(_PATH, f"worker after {checkpoint:,} answers", "MB", mebibytes) for checkpoint, mebibytes in at.items()]
    last = checkpoints[-1]
    rows[-1] = Row(_PATH, rows[-1].measured, "MB", at[last], target=Target("value", "at most", _LIMIT_MEBIBYTES))
    growth = at[last] - at[checkpoints[1]]
    flat = Target("value", "at most", _FLAT_MEBIBYTES)
    return [*rows, Row(_PATH, f"growth from {checkpoints[1]:,} to {last:,}", "MB", growth, target=flat)]
