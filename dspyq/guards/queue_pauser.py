"""Pausing of queues while their model cannot be called, and resuming them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container

import redis

from dspyq.core.events import Event
from dspyq.delivery.pauses import Pauses
from dspyq.guards.interruptions import Refusal

logger = logging.getLogger("dspyq.gates")


class QueuePauser:
    """Pauses the queues of refused jobs; any thread may call any method.

    Args:
        pauses: The pauses that the worker's consumer obeys.
        killed: Reads the queues whose arm was killed, which need not wait for their own model any more.
    """

    def __init__(self, pauses: Pauses, killed: Callable[[], Container[str]] = frozenset) -> None:
        self._pauses = pauses
        self._killed = killed
        self._seconds_left: dict[str, Callable[[], float]] = {}
        self._lock = threading.Lock()  # over the dictionary, never over a round trip

    def close(self, queue: str, refusal: Refusal) -> None:
        """Take nothing more from a queue until the refusal is over."""
        if self.pause_until(queue, refusal.seconds_left or _countdown(refusal.wait_seconds)):
            logger.warning(
                Event("queue_paused", queue=queue, error=type(refusal.error).__name__, reason=str(refusal.error))
            )

    def pause_until(self, queue: str, seconds_left: Callable[[], float]) -> bool:
        """Pause a queue until no seconds are left; return True if it was not paused before."""
        with self._lock:
            is_new = queue not in self._seconds_left
            self._seconds_left[queue] = seconds_left
            self._pauses.pause(queue)
        return is_new

    def resume_due(self) -> None:
        """Resume the queues whose refusal is over.

        Raises:
            redis.RedisError: If Redis does not answer; the queues stay paused.
        """
        with self._lock:
            closed = list(self._seconds_left.items())
        killed = self._killed() if closed else ()
        for queue, seconds_left in closed:
            if queue not in killed and seconds_left() > 0:
                continue
            with self._lock:
                if self._seconds_left.get(queue) is seconds_left:  # else it was refused again meanwhile
                    del self._seconds_left[queue]
                    self._pauses.resume(queue)
            logger.info(Event("queue_resumed", queue=queue))


def _countdown(seconds: float) -> Callable[[], float]:
    over_at = time.monotonic() + seconds
    return lambda: over_at - time.monotonic()


class Upkeep:
    """Runs the guards' periodic work in a thread.

    Args:
        catch_up: Sends late writes; called about each second.
        resume_due: Resumes queues; called several times a second.

    Attributes:
        failures: Number of rounds that failed because of Redis or a fault of ours.
    """

    _INTERVAL_SECONDS = 0.25
    _ROUNDS_PER_CATCH_UP = 4

    def __init__(self, catch_up: Callable[[], None], resume_due: Callable[[], None]) -> None:
        self.failures = 0
        self._catch_up = catch_up
        self._resume_due = resume_due
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dspyq-guards", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it, after a last try to send late writes."""
        self._stopping.set()
        self._thread.join()
        self._do(self._catch_up)

    def _run(self) -> None:
        rounds = 0
        while not self._stopping.wait(self._INTERVAL_SECONDS):
            self._do(self._resume_due)
            rounds += 1
            if rounds % self._ROUNDS_PER_CATCH_UP == 0:
                self._do(self._catch_up)

    def _do(self, work: Callable[[], None]) -> None:
        try:
            work()
        except redis.RedisError as error:
            self.failures += 1
            logger.warning(Event("guards_wait_for_redis", error=f"{type(error).__name__}: {error}"))
        except Exception:  # a fault of ours must not end the thread
            self.failures += 1
            logger.exception(Event("guards_not_kept_up"))
