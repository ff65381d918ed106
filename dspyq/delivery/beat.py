"""The thread that renews leases and sweeps, as long as the process lives."""

from __future__ import annotations

import logging
import random
import threading
import time

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.runtime import bound, per_runtime
from dspyq.delivery.adoptions import process_adoptions
from dspyq.delivery.leases import RENEWALS_PER_LEASE, Leases, most_message_bytes, process_leases
from dspyq.delivery.records import Records
from dspyq.delivery.sweeper import Sweeper, SweepPolicy
from dspyq.store.clients import connect
from dspyq.store.spines import current_spine, jobs_url

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_SECONDS = 1.0
#: The shortest time between two beats, as a fraction of the longest.
_SHORTEST_BEAT = 0.8


class Beat:
    """Beats of one process.

    Args:
        leases: Its leases.
        records: The job records, with their own client, so that the beat never waits for other threads.
        policy: The bounds of its sweeps.

    Attributes:
        sweeper: Its sweeper.
        failures: Number of beats cut short by Redis or a fault of ours.
        answered_at: The monotonic second at which Redis had answered the last whole beat; 0 before the first.
    """

    def __init__(self, leases: Leases, records: Records, policy: SweepPolicy) -> None:
        self.sweeper = Sweeper(records, policy)
        self.failures = 0
        self.answered_at = 0.0
        self._is_away = False
        self._leases = leases
        self._records = records
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the beat, unless it runs already."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=bound(self._run), name="dspyq-beat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the beat; leases still held expire."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def once(self) -> None:
        """Renew leases and sweep, once. Errors are counted and logged, never raised."""
        try:
            self._leases.keep(self._records)
            process_adoptions().store_waiting(self._records)
            self.sweeper.sweep()
            self.answered_at = time.monotonic()
            self._is_away = False
        except Exception as error:  # a fault of ours must not cost the other leases
            self.failures += 1
            is_ours = not isinstance(error, redis.RedisError)
            is_known, self._is_away = self._is_away, not is_ours
            if is_known and not is_ours and current_spine() is not None:
                return  # an outage of one of several spines is logged once
            logger.warning(Event("jobs_not_renewed", error=f"{type(error).__name__}: {error}"), exc_info=is_ours)

    def _run(self) -> None:
        interval_seconds = min(SWEEP_INTERVAL_SECONDS, self._leases.lease_seconds / RENEWALS_PER_LEASE)
        self.once()  # at once: workers that die young must sweep too
        # With jitter: a sweep rings for jobs that were handed back, and Redis wakes the client waiting longest. In step
        # with the second that each worker waits, that would repeatedly be the one that cannot run the job.
        while not self._stopping.wait(interval_seconds * random.uniform(_SHORTEST_BEAT, 1)):  # noqa: S311 - jitter
            self.once()


@per_runtime(is_of_part=True)
def process_beat() -> Beat:
    """Return this process's beat."""
    settings = get_settings()
    records = Records(connect(jobs_url()), most_message_bytes(settings))
    return Beat(process_leases(), records, SweepPolicy.of(settings))
