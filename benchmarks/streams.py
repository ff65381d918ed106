"""The cost of streams: what sending the text of many runs takes a worker and Redis, and splitting a reply."""

from __future__ import annotations

from benchmarks.harness import MICROSECONDS, Servers
from benchmarks.rows import Row, Target

_STREAMS = 200
#: A stream takes part in twenty flushes a second: 200 of them take a worker 6 % of a core at this.
_LIMIT_MICROSECONDS = 15.0


def run(*, quick: bool) -> list[Row]:
    """Measure what a stream's part of a flush costs, beside a flush of its own, and what a piece of a reply costs."""
    streams, flushes = (20, 5) if quick else (_STREAMS, 45)
    with Servers() as servers, servers.redis.client() as client:
        client.config_resetstat()
        found = servers.run("flushing:measure", streams=streams, flushes=flushes)
        counted = client.info("commandstats")["cmdstat_evalsha"]
    together, alone = (found[name] * MICROSECONDS for name in ("together", "alone"))
    return [
        Row(
            "streams", f"worker's CPU for each of {streams} streams of a flush", "µs", together,
            "a round trip for each", alone, together / alone, Target("value", "at most", _LIMIT_MICROSECONDS),
        ),
        Row("streams", "Redis's time for each", "µs", float(counted["usec"]) / counted["calls"]),
        Row("streams", "worker's CPU to split a piece of a reply", "µs", found["piece"] * MICROSECONDS),
    ]  # fmt: skip
