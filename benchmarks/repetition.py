"""Fair repetition: what is compared runs in turns, in one run, and ratios are taken round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import redis

Outcome = TypeVar("Outcome")


def alternate(rounds: int, blocks: Mapping[str, Callable[[], Outcome]]) -> dict[str, list[Outcome]]:
    """Run blocks in turns and return what each returned, round by round.

    Every other round goes backwards, so that no block always comes after the same one.
    """
    outcomes: dict[str, list[Outcome]] = {name: [] for name in blocks}
    for number in range(rounds):
        order = list(blocks.items())
        for name, block in order if number % 2 == 0 else reversed(order):
            outcomes[name].append(block())
    return outcomes


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of each round: what slows the machine slows both sides of a round."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def seconds_per_call(calls: int, call: Callable[[], object]) -> Callable[[], float]:
    """Return a block that makes calls and returns what one took."""

    def block() -> float:
        started = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - started) / calls

    return block


def round_trips_per_call(redis_url: str, calls: int, call: Callable[[], object]) -> float:
    """Return how often Redis was read from for a call, by all clients there are."""
    with redis.Redis.from_url(redis_url) as client:

        def reads() -> int:
            total: int = client.info("stats")["total_reads_processed"]
            return total

        reads()  # connects
        before = reads()
        for _ in range(calls):
            call()
        return (reads() - before - 1) / calls  # the second look's own
