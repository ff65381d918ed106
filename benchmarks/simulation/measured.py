"""The measured costs: a run of 1 December 2026 on two shared cores, Python 3.11, Valkey 9.1 on loopback."""

from __future__ import annotations

from benchmarks.simulation.costs import Costs

COSTS = Costs(
    redis_seconds=679e-6,
    spine_seconds=346e-6,
    money_seconds=333e-6,
    worker_seconds=1.89e-3,
    ask_seconds=373e-6,
    alone_seconds=9.4e-3,
    answer_bytes=1_071,
    mark_bytes=105,
    worker_connections=147,
    idle_redis_seconds=1.62e-3,
    listening_seconds=51e-6,
    worker_bytes=148e6,
)
