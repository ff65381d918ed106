"""A batch of as many rows as one shipment may have, through a whole worker."""

from __future__ import annotations

import time
from pathlib import Path

from dspyq.lane.journal import LaneJournal
from tests.chaos.lane_batch import LaneBatch, settings_with
from tests.chaos.lane_callers import WARM_QUESTIONS, callers_of_two, compare
from tests.chaos.lane_deaths import outcome_of
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage
from tests.support.processes import wait_until

#: By default: all rows have come before a shipment goes, which an operator's flush then sends at once.
_LINGER_SECONDS = 120.0
_MODEL_SECONDS = 0.05
_POLL_SECONDS = 2.0
#: More than all holds, so that each call passes by it.
_DAILY_USD = 100_000.0
_LONGEST_SECONDS = 1_500.0
_MOST_WORKER_BYTES = 200_000_000
#: Each further spine has a lane of its own, whose shipment is made and landed at the same time.
_MOST_BYTES_PER_FURTHER_SPINE = 10_000_000
_MOST_ROW_BYTES = 4_500
_KIBI = 1024


def lane_large(scale: Scale) -> Outcome:
    """Ship 50,000 rows of one call each, and ask other questions while their money is held.

    All go in one shipment, or one of each spine, and neither the worker nor Redis grows beyond bounds.
    """
    rows, questions = scale.pick(quick=2_000, full=50_000), scale.pick(quick=30, full=400)
    settings = settings_with(batch_linger_seconds=_LINGER_SECONDS)
    settings |= {"budget": {"daily_usd": _DAILY_USD}, "lane": {"first_poll_seconds": _POLL_SECONDS}}
    with Stage(settings=settings, concurrency=8) as stage, stage.redis.client() as client:
        stage.endpoint.clear()
        stage.endpoint.script(latency_seconds=_MODEL_SECONDS, lane="live")
        stage.endpoint.batches.script(is_manual=True)
        worker = stage.worker()
        with callers_of_two(stage) as pair:
            before, at_rest = _used_bytes(stage), peak_bytes(worker.pid, starts_over=True)
            compared = compare(pair, questions, "before")
            began_at = time.monotonic()
            with LaneBatch(stage, rows, "qa") as batch:
                wait_until(lambda: client.zcard("dspy:v1:delayed") >= rows, _LONGEST_SECONDS, "all rows asleep")
                asleep_at = time.monotonic()
                _flush_lanes(stage)
                stage.endpoint.batches.wait_for_batches(len(stage.spines))
                wait_until(lambda: client.hlen("dspy:v1:lane:control:bodies") == 0, _LONGEST_SECONDS, "a batch")
                shipped_at = time.monotonic()
                each = (_used_bytes(stage) - before) / rows
                compared |= compare(pair, questions, "beside held lines")
                stage.endpoint.batches.finish()
                ended_at = time.monotonic()
                wait_until(lambda: client.hlen("dspy:v1:lane:control:lines") == 0, _LONGEST_SECONDS, "all landed")
                landed_at = time.monotonic()
                counted = batch.end(_LONGEST_SECONDS)
                done_at = time.monotonic()
        peak, shipments = peak_bytes(worker.pid), stage.endpoint.batches.counts().batches
        if shipments != len(stage.spines):
            counted.remarks.append(f"{shipments} shipments")
        if peak >= _MOST_WORKER_BYTES + _MOST_BYTES_PER_FURTHER_SPINE * (len(stage.spines) - 1):
            counted.remarks.append(f"the worker took {peak} bytes")
        if each > _MOST_ROW_BYTES:
            counted.remarks.append(f"a sleeping row takes {each:.0f} bytes of Redis")
        figures = {
            "shipments": shipments,
            "asleep after": f"{asleep_at - began_at:.0f} s",
            "shipped in": f"{shipped_at - asleep_at:.0f} s",
            "landed in": f"{landed_at - ended_at:.0f} s",
            "all rows in OUT after": f"{done_at - ended_at:.0f} s",
            "a sleeping row": f"{each / 1000:.2f} kB of Redis",
            "the worker": f"{at_rest / 1e6:.0f} MB at rest, {peak / 1e6:.0f} MB at most",
        }
        asked = 2 * (2 * questions + WARM_QUESTIONS)
        fault = f"{rows:,} rows in {'one shipment' if shipments == 1 else f'{shipments} shipments'}"
        return outcome_of(stage, fault, [batch], [counted], figures | compared, asked=asked)


def _used_bytes(stage: Stage) -> int:
    return sum(int(server.cli("INFO", "memory")["used_memory"]) for server in stage.servers)


def _flush_lanes(stage: Stage) -> None:
    for server in stage.spines:
        with server.client() as client:
            LaneJournal(client, "control").flush()


def peak_bytes(pid: int, *, starts_over: bool = False) -> int:
    """Return a process's memory at most, since its start or the last call that started over."""
    status = Path(f"/proc/{pid}/status").read_text()
    if starts_over:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return int(status.partition("VmHWM:")[2].split()[0]) * _KIBI


FAULTS = {"lane-large": lane_large}
