"""An event loop that asks on a frozen Redis, beside an idle one."""

from __future__ import annotations

from statistics import quantiles

from benchmarks.harness import Servers
from benchmarks.rows import Row

_MILLISECONDS = 1e3


def run(*, quick: bool) -> list[Row]:
    """Measure how late an event loop is that asks on a frozen Redis."""
    with Servers() as servers:
        found = servers.run("loop_lag:measure", seconds=0.5 if quick else 4, redis_pid=servers.redis.process.pid)
    idle, frozen = _summary(found["idle"]), _summary(found["frozen"])
    return [
        Row(
            "ask, ask_many, adelay, await", f"lag of the loop, {name}", "ms", frozen[name], "an idle loop", idle[name],
            frozen[name] / idle[name], note="Redis is frozen (SIGSTOP)",
        )
        for name in idle
    ]  # fmt: skip


def _summary(lags: list[float]) -> dict[str, float]:
    cuts = quantiles(lags, n=100)
    return {"p50": cuts[49] * _MILLISECONDS, "p99": cuts[98] * _MILLISECONDS, "max": max(lags) * _MILLISECONDS}
