"""Counts of a process's calls that a cache answered, for experiments; flushed each second.

A call that waits for a run is counted in Redis, when the run ends. A hit costs no round trip of its own, so a process
sums them. If it is killed, its last second is lost, of all arms alike.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import redis

from dspyq.core.events import Event
from dspyq.core.runtime import current, per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.experiments.exposure import Exposure
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import load_script

logger = logging.getLogger("dspyq.experiments")

_FLUSH_SECONDS = 1.0
#: Rows of one script: a few milliseconds of the server.
_ROWS_A_FLUSH = 1_000
#: Rows held while Redis does not answer; further ones are dropped, of all arms alike, and counted.
_MOST_ROWS = 100_000


class _Key(NamedTuple):
    exposure: Exposure
    task_id: str


@dataclass
class _Sums:
    calls: int = 0
    waited_us: int = 0
    waited_ms_squares: int = 0
    slow: int = 0


class _Flush(NamedTuple):
    id: str
    program: str
    rows: list[str | int]


class HitTally:
    """Sums of hits by exposure, safe between threads."""

    def __init__(self) -> None:
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._flushes: deque[_Flush] = deque()
        self._rows: dict[_Key, _Sums] = {}
        self._dropped = 0
        self._client = jobs_client()
        self._script = load_script(self._client, "dspyq.experiments", "count")
        self._runtime = current()
        self._process_id = os.getpid()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._runtime.bind(self._run), name="dspyq-experiments", daemon=True)
        self._thread.start()

    def count(self, exposure: Exposure, task_id: str, waited_seconds: float, *, is_slow: bool) -> None:
        """Count a call that a cache answered.

        Args:
            exposure: The call.
            task_id: The task that answered.
            waited_seconds: What its caller waited.
            is_slow: Whether that is longer than the threshold of ``call.slow_wait``.
        """
        waited_us = int(waited_seconds * 1e6)
        key = _Key(exposure, task_id)
        with self._lock:
            sums = self._rows.get(key)
            if sums is None:
                if len(self._rows) + len(self._flushes) * _ROWS_A_FLUSH >= _MOST_ROWS:
                    self._dropped += 1
                    return
                sums = self._rows[key] = _Sums()
            sums.calls += 1
            sums.waited_us += waited_us
            sums.waited_ms_squares += (waited_us // 1000) ** 2
            sums.slow += is_slow

    def flush(self) -> None:
        """Send what was counted.

        Raises:
            redis.RedisError: If Redis does not answer; what was not sent is kept.
        """
        with self._sending:
            self._prepare()
            while self._flushes:
                # Under the same id until a reply comes: of a flush whose reply was lost, nothing is counted twice.
                flush = self._flushes[0]
                self._script(flush=flush.id, program=flush.program, rows=flush.rows)
                self._flushes.popleft()

    def _prepare(self) -> None:
        with self._lock:
            rows, self._rows = self._rows, {}
            dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.warning(Event("experiment_hits_dropped", calls=dropped))
        by_program: dict[str, list[tuple[str | int, ...]]] = {}
        for (exposure, task_id), sums in rows.items():
            values = (exposure.stated(), task_id, sums.calls, sums.waited_us, sums.waited_ms_squares, sums.slow)
            by_program.setdefault(exposure.program, []).append(values)
        for program, each in by_program.items():
            for start in range(0, len(each), _ROWS_A_FLUSH):
                flat = [value for row in each[start : start + _ROWS_A_FLUSH] for value in row]
                self._flushes.append(_Flush(os.urandom(16).hex(), program, flat))

    def _run(self) -> None:
        while not self._stopped.wait(_FLUSH_SECONDS):
            try:
                self.flush()
            except redis.RedisError as error:
                tolerate("experiment_hits", error)
            except Exception as error:  # noqa: BLE001 - without this thread no hit would be counted any more
                tolerate("experiment_hits", error, is_fault=True)

    def close(self) -> None:
        """Send the rest; in a forked child, which has no thread, do nothing."""
        if os.getpid() != self._process_id:
            return
        self._stopped.set()
        self._thread.join(timeout=2 * _FLUSH_SECONDS)
        try:
            with self._runtime.active():
                self.flush()
        except redis.RedisError as error:
            logger.warning(Event("experiment_hits_not_counted", error=type(error).__name__))


def _close(tally: HitTally) -> None:
    atexit.unregister(tally.close)
    tally.close()


@per_runtime(close=_close)
def process_tally() -> HitTally:
    """Return this process's tally, started at its first use; a forked child gets one of its own."""
    tally = HitTally()
    atexit.register(tally.close)
    return tally
