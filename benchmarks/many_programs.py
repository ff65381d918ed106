"""Costs of programs that are configured and not asked: a worker of 600 beside one of 3."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

from benchmarks.harness import MICROSECONDS, scheduled_seconds
from benchmarks.program_fleet import Fleet, start_fleet
from benchmarks.rows import Row, Target
from tests.support.redis_server import RedisServer

_FEW, _MANY = 3, 600
_SCRAPES = 3
#: After the last prediction, until what follows it is done.
_REST_SECONDS = 3.0
_PATH = f"{_MANY} programs beside {_FEW}"


def run(*, quick: bool) -> list[Row]:
    """Measure two workers beside each other: idle, under predictions of one program in turns, and scraped."""
    idle_seconds, turns, calls = (2.0, 1, 50) if quick else (60.0, 7, 300)
    with start_fleet(_FEW) as few, start_fleet(_MANY if not quick else 30) as many:
        fleets = (many, few)
        for fleet in fleets:
            fleet.ask(50)
        idle = _idle_percent(fleets, idle_seconds)
        asked = [[_per_call(fleet, calls) for fleet in fleets] for _ in range(turns)]
        scraped = [_scrape(fleet) for fleet in fleets]
    return [
        _row("a worker with nothing to do", "% of a core", [idle], 1.5),
        _row("processor time of a prediction", "µs", [[each[0] for each in turn] for turn in asked], 1.5),
        _row("Redis's time of a prediction", "µs", [[each[1] for each in turn] for turn in asked], 1.15),
        _row("a scrape", "ms", [[seconds * 1000 for seconds, _ in scraped]], 10.0),
        _row("its text", "kB", [[len(text) / 1000 for _, text in scraped]], 10.0),
    ]


def _row(measured: str, unit: str, turns: Sequence[Sequence[float]], most: float) -> Row:
    """Return the medians of what was measured in turns of both, and of their ratios."""
    ours, theirs = (median(turn[place] for turn in turns) for place in (0, 1))
    ratio = median(turn[0] / turn[1] for turn in turns)
    return Row(_PATH, measured, unit, ours, f"{_FEW} programs", theirs, ratio, Target("ratio", "at most", most))


def _idle_percent(fleets: Sequence[Fleet], seconds: float) -> list[float]:
    """Return what the workers take of a core while nothing is asked, at the same time."""
    time.sleep(_REST_SECONDS)
    began = [scheduled_seconds(fleet.worker.pid) for fleet in fleets]
    time.sleep(seconds)
    ended = [scheduled_seconds(fleet.worker.pid) for fleet in fleets]
    return [100 * (end - begin) / seconds for begin, end in zip(began, ended, strict=True)]


def _per_call(fleet: Fleet, calls: int) -> tuple[float, float]:
    """Return the microseconds of a prediction: of the worker's processor, and of all commands in Redis."""
    began, redis_began = scheduled_seconds(fleet.worker.pid), _redis_seconds(fleet.redis)
    fleet.ask(calls)
    took = scheduled_seconds(fleet.worker.pid) - began, _redis_seconds(fleet.redis) - redis_began
    return took[0] / calls * MICROSECONDS, took[1] / calls * MICROSECONDS


def _scrape(one: Fleet) -> tuple[float, str]:
    return min(one.scrape() for _ in range(_SCRAPES))


def _redis_seconds(redis: RedisServer) -> float:
    """Return what Redis itself counts for its commands up to now."""
    stats = redis.client().info("commandstats")
    return sum(each["usec"] for each in stats.values()) / MICROSECONDS
