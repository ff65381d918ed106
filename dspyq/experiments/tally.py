"""Counts of a process's calls that a cache answered, for experiments; flushed each second.

A call that waits for a run is counted in Redis, when the run ends. A hit costs no round trip of its own, so a process
sums them. If it is killed, its last second is lost, of all arms alike.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
from collections import deque
from typing import NamedTuple

import redis

from dspyq.core.events import Event
from dspyq.core.runtime import current, per_runtime
from dspyq.core.tolerated import tolerate
from dspyq.experiments.arm_hits import ArmHits, CountedPart, in_scripts
from dspyq.experiments.exposure import Exposure
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import load_script

logger = logging.getLogger("dspyq.experiments")

_FLUSH_SECONDS = 1.0


class _Flush(NamedTuple):
    number: int
    program: str
    epoch: str
    parts: bytes


class HitTally:
    """Sums of hits by arm, safe between threads."""

    def __init__(self) -> None:
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._flushes: deque[_Flush] = deque()
        self._id, self._numbers = os.urandom(16).hex(), itertools.count(1)
        self._sums: dict[tuple[str, str, str, int], ArmHits] = {}
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
            task_id: The task that answered; empty where the experiment counts nothing by answer.
            waited_seconds: What its caller waited.
            is_slow: Whether that is longer than the threshold of ``call.slow_wait``.
        """
        program, epoch, arm, _, _, _, day = exposure
        waited_us = int(waited_seconds * 1e6)
        with self._lock:
            sums = self._sums.get((program, epoch, arm, day))
            if sums is None:
                sums = self._sums[program, epoch, arm, day] = ArmHits()
            sums.add(exposure, task_id, waited_us, is_slow)

    def flush(self) -> None:
        """Send what was counted.

        Raises:
            redis.RedisError: If Redis does not answer; what was not sent is kept.
        """
        with self._sending:
            self._send()  # what an earlier flush could not
            self._prepare()
            self._send()

    def _send(self) -> None:
        while self._flushes:
            # Under the same number until a reply comes: of a flush whose reply was lost, nothing is counted twice.
            number, program, epoch, parts = self._flushes[0]
            self._script(process=self._id, flush=number, program=program, epoch=epoch, parts=parts)
            self._flushes.popleft()

    def _prepare(self) -> None:
        with self._lock:
            held, self._sums = self._sums, {}
        if dropped := sum(sums.dropped for sums in held.values()):
            logger.warning(Event("experiment_hits_dropped", calls=dropped))
        by_experiment: dict[tuple[str, str], list[CountedPart]] = {}
        for (program, epoch, arm, day), sums in held.items():
            by_experiment.setdefault((program, epoch), []).extend(sums.parts(arm, day))
        for (program, epoch), parts in by_experiment.items():
            for together in in_scripts(parts):
                self._flushes.append(_Flush(next(self._numbers), program, epoch, together))

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


@per_runtime(is_of_part=True, close=_close)
def process_tally() -> HitTally:
    """Return this process's tally of the active spine, started at its first use; a forked child gets one of its own."""
    tally = HitTally()
    atexit.register(tally.close)
    return tally
