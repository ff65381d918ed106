"""The cost of a tenant with a daily limit: its new predictions beside others, from the put to the settlement."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from statistics import median

from benchmarks.contenders import DSPYQ
from benchmarks.harness import MICROSECONDS, Servers, scheduled_seconds
from benchmarks.repetition import alternate, median_ratio
from benchmarks.rows import Row
from tests.support.processes import REPOSITORY

_TENANT = "acme"
_NOBODY = ""


def run(*, quick: bool) -> list[Row]:
    """Measure the processor time of a worker and of Redis's scripts for each prediction, in turns."""
    calls, rounds = (20, 1) if quick else (400, 9)
    with Servers() as servers, servers.worker(DSPYQ) as worker:
        command = [sys.executable, "-m", "dspyq", "tenants", "limit", _TENANT, "--daily", "1000"]
        subprocess.run(command, env=servers.environment(), cwd=REPOSITORY, check=True, capture_output=True)
        blocks = {name: _block(servers, worker.pid, name, calls) for name in (_TENANT, _NOBODY)}
        alternate(1, blocks)  # opens the tenant's account
        found = alternate(rounds, blocks)
    rows = []
    for place, measured in enumerate(("worker's CPU", "Redis's time of scripts")):
        ours, theirs = ([each[place] for each in found[name]] for name in (_TENANT, _NOBODY))
        rows.append(
            Row(
                "prediction of a tenant", measured, "µs", median(ours) * MICROSECONDS, "without a tenant",
                median(theirs) * MICROSECONDS, median_ratio(ours, theirs),
            )
        )  # fmt: skip
    return rows


def _block(servers: Servers, pid: int, tenant: str, calls: int) -> Callable[[], tuple[float, float]]:
    """Return a block that has new questions answered, and returns the seconds of the worker and Redis for each."""
    numbers = itertools.count()

    def answer() -> tuple[float, float]:
        before = scheduled_seconds(pid), _script_seconds(servers)
        label = f"{tenant or 'nobody'} in turn {next(numbers)}"
        servers.wait_for_results(servers.run("asking:dspyq", count=calls, label=label, tenant=tenant))
        after = scheduled_seconds(pid), _script_seconds(servers)
        return (after[0] - before[0]) / calls, (after[1] - before[1]) / calls

    return answer


def _script_seconds(servers: Servers) -> float:
    with servers.redis.client() as client:
        return float(client.info("commandstats")["cmdstat_evalsha"]["usec"]) / MICROSECONDS
