"""Sweeps of the job records: due, lost and dead-lettered jobs, and the versions that no worker serves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dspyq.config.settings import Settings
from dspyq.core.events import Event
from dspyq.delivery.records import Records
from dspyq.delivery.versions import ANNOUNCE_SECONDS, process_versions

logger = logging.getLogger(__name__)

#: Most sweeps in one beat; then renewals come first again.
SWEEPS_PER_BEAT = 20
#: Longest time between two sweeps on a busy machine; after a longer one Redis may have been down.
_LONGEST_GAP_SECONDS = 2.5
_HINT = "no live worker has this version of the variant; start workers with its configuration and state files"


@dataclass(frozen=True)
class SweepPolicy:
    """Bounds of sweeps.

    Attributes:
        lease_seconds: Seconds that a run keeps its job after the last renewal.
        max_deliveries: Number of leases that a job may lose before it is set aside.
        version_wait_seconds: Seconds that a job waits for a worker of its version.
        max_dead_jobs: Number of dead-lettered jobs that are kept.
        dead_seconds: Seconds for which they are.
    """

    lease_seconds: float
    max_deliveries: int
    version_wait_seconds: float = math.inf
    max_dead_jobs: int = 10_000
    dead_seconds: float = 30 * 86_400.0

    @classmethod
    def of(cls, settings: Settings) -> SweepPolicy:
        """Return those of a configuration."""
        delivery = settings.delivery
        return cls(
            delivery.visibility_timeout_seconds,
            delivery.max_deliveries,
            delivery.version_wait_seconds,
            delivery.max_dead_jobs,
            delivery.dead_jobs_days * 86_400.0,
        )


class Sweeper:
    """Sweeps of one process.

    Args:
        records: The job records.
        policy: Its bounds.

    Attributes:
        notify_callers: Callback that fails dead-lettered jobs for their callers; called again until it succeeds.
        store_cancelled: Callback that stores the ends of cancelled jobs; called again until it succeeds.
    """

    def __init__(self, records: Records, policy: SweepPolicy) -> None:
        self.notify_callers: Callable[[Sequence[str]], object] | None = None
        self.store_cancelled: Callable[[Sequence[str]], object] | None = None
        self._records = records
        self._policy = policy
        self._announce_at = 0.0

    def sweep(self) -> None:
        """Sweep until nothing is left to do, or other work must come first.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        policy = self._policy
        for _ in range(SWEEPS_PER_BEAT):
            sweep = self._records.sweep(
                policy.max_deliveries,
                max(_LONGEST_GAP_SECONDS, policy.lease_seconds / 2),
                version_wait_seconds=policy.version_wait_seconds,
                dead=(policy.max_dead_jobs, policy.dead_seconds),
                served=self._announcement(),
            )
            process_versions().waiting = sweep.versions
            for queue, jobs in sweep.unserved:
                logger.warning(Event("version_not_served", queue=queue, jobs=jobs, hint=_HINT))
            if sweep.expired:
                logger.warning(Event("jobs_queued_again", reason="lost their leases", task_ids=list(sweep.expired)))
            if sweep.unnotified and self.notify_callers:
                self.notify_callers(sweep.unnotified)
            if sweep.cancelled and self.store_cancelled:
                self.store_cancelled(sweep.cancelled)
            if sweep.is_complete:
                break

    def _announcement(self) -> list[str]:
        """Return the announcement for the next sweep, empty for most sweeps."""
        if time.monotonic() < self._announce_at:
            return []
        self._announce_at = time.monotonic() + ANNOUNCE_SECONDS
        return process_versions().announced()
