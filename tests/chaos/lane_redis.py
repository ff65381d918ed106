"""Redis dies under a lane, and may have lost what it had not written to its disk for certain."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.chaos.lane_batch import LaneBatch, settings_with
from tests.chaos.lane_deaths import outcome_of
from tests.chaos.outcome import Outcome
from tests.chaos.scale import Scale
from tests.chaos.stage import Stage, number_of_spines
from tests.support.redis_server import RedisServer

_LINES_PER_SHIPMENT = 10
_LOOK_SECONDS, _KEPT_SECONDS = 0.02, 4.0
_LONGEST_SECONDS = 360.0


class _Written(NamedTuple):
    """The bytes of the file of writes at a moment."""

    at: float
    size_bytes: int


def lane_redis_restarted(scale: Scale) -> Outcome:
    """SIGKILL a Redis that syncs each write, again and again, while a lane ships."""
    return _restarted(scale, scale.pick(quick=2, full=10), (1.0, 4.0), policy="always", lost_seconds=0.0)


def lane_redis_lost_second(scale: Scale) -> Outcome:
    """SIGKILL a Redis that syncs each second, and cut off its last second, which it may lose with its host."""
    return _restarted(scale, scale.pick(quick=4, full=20), (0.3, 2.0), policy="everysec", lost_seconds=1.0)


def _restarted(
    scale: Scale, restarts: int, between_seconds: tuple[float, float], *, policy: str, lost_seconds: float
) -> Outcome:
    """Kill Redis again and again; of several servers one at a time, be it a spine or that of money."""
    rows = scale.pick(quick=20, full=100)
    lines = max(1, _LINES_PER_SHIPMENT // number_of_spines())
    with Stage(settings=settings_with(batch_max_lines=lines), is_append_only=True) as stage:
        stage.endpoint.clear()
        stage.endpoint.batches.script(delay_seconds=1.0)
        syncs = stage.folder / "syncs"
        syncs.touch()
        for server in stage.servers:
            server.cli("CONFIG", "SET", "appendfsync", policy)
        env = {"DSPYQ_WORKERS__IMPORTS": '["tests.support.recorded_syncs"]', "TEST_SYNCS": str(syncs)}
        workers = [stage.worker(env, waits=False) for _ in range(2)]
        for worker in workers:
            worker.ready()
        lost_bytes, done = 0, 0
        with LaneBatch(stage, rows, module="tests.support.recorded_command", env=env) as batch:
            stage.endpoint.batches.wait_for_batches(1)
            while done < restarts and batch.is_running:
                server = scale.random.choice(stage.servers)
                with _watched(server) as written:
                    time.sleep(scale.random.uniform(*between_seconds))
                    lost_bytes += _restart(server, written, syncs, lost_seconds)
                server.cli("CONFIG", "SET", "appendfsync", policy)
                done += 1
            counted = batch.end(_LONGEST_SECONDS)
        counted.remarks += ["a worker ended" for worker in workers if not worker.is_running]
        figures = {"restarts": done, "lost": f"{lost_bytes / 1000:.0f} kB of writes"}
        return outcome_of(stage, f"Redis killed {done}× under a lane", [batch], [counted], figures)


@contextmanager
def _watched(server: RedisServer) -> Iterator[deque[_Written]]:
    """Note how long the file of writes is, all the while."""
    written: deque[_Written] = deque(maxlen=round(_KEPT_SECONDS / _LOOK_SECONDS))
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            with suppress(FileNotFoundError):
                written.append(_Written(time.monotonic(), _file(server).stat().st_size))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield written
    finally:
        is_over.set()
        watcher.join()


def _file(server: RedisServer) -> Path:
    folder = server.append_only_directory
    if folder is None:
        raise RuntimeError("this server writes nothing down")
    return max(folder.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


def _restart(server: RedisServer, written: deque[_Written], syncs: Path, lost_seconds: float) -> int:
    """Kill Redis, cut its file to what a host that dies must have kept, and start it; return the bytes cut off."""
    server.process.kill()
    waits = [line.split() for line in syncs.read_text().splitlines()]
    since = max([time.monotonic() - lost_seconds, *(float(at) for port, at in waits if int(port) == server.port)])
    path = _file(server)
    size = path.stat().st_size
    keep = min((one.size_bytes for one in written if one.at >= since), default=size)
    with path.open("r+b") as file:
        file.truncate(keep)
    server.process.start()
    server.process.ready()
    return size - keep


FAULTS: dict[str, Callable[[Scale], Outcome]] = {
    "lane-redis-restarted": lane_redis_restarted,
    "lane-redis-lost-second": lane_redis_lost_second,
}
