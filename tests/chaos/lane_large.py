"""A batch of as many rows as one shipment may have, through a whole worker."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.chaos.lane_batch import LaneBatch, money_faults, settings_with
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.processes import wait_until

_LINGER_SECONDS = 10.0
_LONGEST_SECONDS = 1_500.0
_MOST_RUNNER_BYTES = 200_000_000
_MOST_ROW_BYTES = 4_500
_KIBI = 1024


def lane_large(scale: Scale) -> Outcome:
    """Ship 50,000 rows of one call each; all go in one shipment, and neither the worker nor Redis grows beyond bounds."""
    rows = scale.pick(quick=2_000, full=50_000)
    settings = settings_with(batch_linger_seconds=scale.pick(quick=3.0, full=_LINGER_SECONDS))
    with Stage(settings=settings, concurrency=8) as stage:
        stage.endpoint.clear()
        stage.endpoint.batches.script(is_manual=True)
        worker = stage.worker()
        began_at = time.monotonic()
        figures: dict[str, Any] = {}
        with stage.redis.client() as client:
            before = client.info("memory")["used_memory"]
            resting = peak_bytes(worker.pid, starts_over=True)
            with LaneBatch(stage, rows, "qa") as batch:
                wait_until(lambda: client.zcard("dspy:v1:delayed") >= rows, _LONGEST_SECONDS, "all rows asleep")
                asleep_at = time.monotonic()
                wait_until(lambda: client.hlen("dspy:v1:lane:control:bodies") == 0, _LONGEST_SECONDS, "a batch")
                each = (client.info("memory")["used_memory"] - before) / rows
                shipped_peak = peak_bytes(worker.pid, starts_over=True)
                shipped_at = time.monotonic()
                stage.endpoint.batches.finish()
                wait_until(
                    lambda: client.exists("dspy:v1:lane:control:shipments") == 0, _LONGEST_SECONDS, "all landed"
                )
                landed_at = time.monotonic()
                counted = batch.end(_LONGEST_SECONDS)
        ended_at = time.monotonic()
        peak = max(shipped_peak, peak_bytes(worker.pid))
        counts = stage.endpoint.batches.counts()
        remarks = counted.remarks + money_faults(stage)
        if counts.batches != 1:
            remarks.append(f"{counts.batches} shipments")
        if peak >= _MOST_RUNNER_BYTES:
            remarks.append(f"the worker took {peak} bytes")
        if each > _MOST_ROW_BYTES:
            remarks.append(f"a sleeping row takes {each:.0f} bytes of Redis")
        return Outcome(
            fault=f"one shipment of {rows:,} rows",
            jobs=rows,
            lost=counted.lost,
            doubled_answers=counted.doubled,
            extra_model_calls=counts.lines_billed + stage.endpoint.calls() - batch.calls,
            explained_model_calls=0,
            recovery_seconds=(),
            recovery_bound_seconds=0,
            remarks=tuple(remarks),
            figures=figures
            | {
                "shipments": counts.batches,
                "asleep after": f"{asleep_at - began_at:.0f} s",
                "shipped after": f"{shipped_at - began_at:.0f} s",
                "landed": f"{landed_at - shipped_at:.0f} s after its end",
                "all rows": f"{ended_at - shipped_at:.0f} s after it",
                "in all": f"{ended_at - began_at:.0f} s",
                "a sleeping row": f"{each / 1000:.2f} kB of Redis",
                "the worker at rest": f"{resting / 1e6:.0f} MB",
                "at most": f"{peak / 1e6:.0f} MB",
            },
        )


def peak_bytes(pid: int, *, starts_over: bool = False) -> int:
    """Return a process's memory at most, since its start or the last call that started over."""
    status = Path(f"/proc/{pid}/status").read_text()
    if starts_over:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) * _KIBI


FAULTS = {"lane-large": lane_large}
