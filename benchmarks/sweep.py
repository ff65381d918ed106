"""Cost of a worker's sweep to Redis each second, however many jobs wait, and the memory of a waiting job."""

from __future__ import annotations

import redis

from benchmarks.harness import MICROSECONDS
from benchmarks.rows import Row, Target
from dspyq.delivery.records import QueuedJob, Records
from tests.support.redis_server import RedisServer

_QUEUED = (0, 100_000, 1_000_000)
_QUICK_QUEUED = (0, 1_000, 10_000)
_SWEEPS = 200
_QUEUE = "qa.control"
_MESSAGE = "x" * 1_000
_LIMIT_MICROSECONDS = 1_000


def run(*, quick: bool) -> list[Row]:
    """Fill a queue and sweep at each size; nothing is due, lost or without a bell, as most of the time."""
    rows = []
    with RedisServer() as server, server.client(decode_responses=False) as client:
        records = Records(client)
        records.sweep(1)
        empty_bytes = client.info("memory")["used_memory"]
        waiting = 0
        for queued in _QUICK_QUEUED if quick else _QUEUED:
            for number in range(waiting, queued):
                records.put(QueuedJob(f"00000000-0000-0000-0000-{number:012}", _MESSAGE, _QUEUE))
            waiting = queued
            target = Target("value", "at most", _LIMIT_MICROSECONDS)
            microseconds = _sweep_seconds(records, client) * MICROSECONDS
            rows.append(Row("sweep", f"Redis's time, {queued:,} jobs waiting", "µs", microseconds, target=target))
        taken_bytes = client.info("memory")["used_memory"] - empty_bytes
    measured = f"memory of a waiting job, message of {len(_MESSAGE):,} B"
    return [*rows, Row("sweep", measured, "B", taken_bytes / waiting)]


def _sweep_seconds(records: Records, client: redis.Redis) -> float:
    """Return what Redis itself counts for one sweep."""
    client.config_resetstat()
    for _ in range(_SWEEPS):
        records.sweep(1)
    counted = client.info("commandstats")["cmdstat_evalsha"]
    return float(counted["usec"]) / counted["calls"] / MICROSECONDS
