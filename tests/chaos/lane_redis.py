"""Redis dies under a lane, and has lost up to its last second: all that it had not written to its disk for certain."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import redis

from tests.chaos.lane_batch import LaneBatch, settings_with
from tests.chaos.lane_deaths import outcome_of
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage

_LINES_PER_SHIPMENT = 10
#: What ``appendfsync everysec`` may lose.
_LOST_SECONDS = 1.0
_LOOK_SECONDS = 0.02
_SECONDS_BETWEEN_RESTARTS = (1.0, 4.0)
_LONGEST_SECONDS = 360.0


class _Written(NamedTuple):
    """The file of writes at a moment: its bytes, and how many clients had been answered that theirs are on disk."""

    at: float
    size_bytes: int
    synced: int


def lane_redis_restarted(scale: Scale) -> Outcome:
    """SIGKILL Redis again and again while a lane ships, and cut off what it might have lost with its host."""
    rows, restarts = scale.pick(quick=20, full=100), scale.pick(quick=2, full=10)
    with Stage(settings=settings_with(batch_max_lines=_LINES_PER_SHIPMENT), is_append_only=True) as stage:
        stage.endpoint.clear()
        stage.endpoint.batches.script(delay_seconds=1.0)
        stage.redis.cli("CONFIG", "SET", "appendfsync", "everysec")
        workers = [stage.worker(waits=False) for _ in range(2)]
        for worker in workers:
            worker.ready()
        lost_bytes, done = 0, 0
        with LaneBatch(stage, rows) as batch:
            stage.endpoint.batches.wait_for_batches(1)
            while done < restarts and batch.is_running:
                with _watched(stage) as written:
                    time.sleep(scale.random.uniform(*_SECONDS_BETWEEN_RESTARTS))
                    lost_bytes += _lose_a_second(stage, written)
                done += 1
            counted = batch.end(_LONGEST_SECONDS)
        counted.remarks += ["a worker ended" for worker in workers if not worker.is_running]
        figures = {"restarts": done, "lost": f"{lost_bytes / 1000:.0f} kB of writes"}
        return outcome_of(stage, f"Redis killed {done}× under a lane", [batch], [counted], figures)


@contextmanager
def _watched(stage: Stage) -> Iterator[deque[_Written]]:
    """Note how long the file of writes is, all the while."""
    written: deque[_Written] = deque(maxlen=round(2 * _LOST_SECONDS / _LOOK_SECONDS))
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            with suppress(redis.RedisError, FileNotFoundError):
                written.append(_look(stage))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield written
    finally:
        is_over.set()
        watcher.join()


def _look(stage: Stage) -> _Written:
    statistics = stage.redis.cli("INFO", "commandstats")
    synced = statistics.get("cmdstat_waitaof", {}).get("calls", 0)
    return _Written(time.monotonic(), _file(stage).stat().st_size, synced)


def _file(stage: Stage) -> Path:
    return max(stage.folder.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


def _lose_a_second(stage: Stage, written: deque[_Written]) -> int:
    """Kill Redis, cut its file to what a host that dies must have kept, and start it; return the bytes cut off."""
    last = _look(stage)
    stage.redis.process.kill()
    kept = [one.size_bytes for one in written if last.at - one.at <= _LOST_SECONDS and one.synced == last.synced]
    path = _file(stage)
    size = path.stat().st_size
    keep = min(kept, default=size)
    with path.open("r+b") as file:
        file.truncate(keep)
    stage.redis.process.start()
    stage.redis.process.ready()
    stage.redis.cli("CONFIG", "SET", "appendfsync", "everysec")
    return size - keep


FAULTS: dict[str, Callable[[Scale], Outcome]] = {"lane-redis-restarted": lane_redis_restarted}
