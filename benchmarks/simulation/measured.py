"""The measured costs: a run of 1 December 2026 on two shared cores under a load of 20 to 24, Valkey 9.1 on loopback.

The time of a question alone is of another run of that day, under a load of 12: it is no processor time, and grows with
each process that waits for the machine.
"""

from __future__ import annotations

from benchmarks.simulation.costs import Costs

COSTS = Costs(
    redis_seconds=761e-6,
    spine_seconds=423e-6,
    money_seconds=308e-6,
    worker_seconds=2.19e-3,
    ask_seconds=433e-6,
    alone_seconds=9.4e-3,
    answer_bytes=1_066,
    mark_bytes=105,
    worker_connections=157,
    spine_connections=90,
    money_connections=53,
    idle_redis_seconds=1.60e-3,
    idle_money_seconds=1.08e-3,
    listening_seconds=51e-6,
    worker_bytes=148e6,
)
