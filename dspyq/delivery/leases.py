"""The runs this process holds: their leases, kept alive by one thread for as long as the process lives."""

from __future__ import annotations

import functools
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.delivery.records import Delivery, Records
from dspyq.store.clients import connect, jobs_client

logger = logging.getLogger(__name__)

SWEEP_INTERVAL_SECONDS = 1.0
RENEWALS_PER_LEASE = 3
#: The shortest time between two beats, as a part of the longest.
_SHORTEST_BEAT = 0.8
#: However much there is to move, renewals come first again after so many scripts.
SWEEPS_PER_BEAT = 20
#: Between two sweeps, on a busy machine; after a longer pause Redis may have been away.
_LONGEST_GAP_SECONDS = 2.5


@dataclass
class Lease:
    """What is known of a run.

    Attributes:
        sure_until: The monotonic second up to which the lease is ours, whatever happens to us or to Redis.
        return_slot: Tells the consumer that it may prefetch one job more.
        is_begun: Whether its body has begun.
        ended_at: The monotonic second Celery was done with it, its result stored or not.
        is_storing: Whether its answer is on its way to Redis, which may end its job.
        is_finished: Whether that has ended its job: its ack has nothing to tell.
    """

    sure_until: float
    is_begun: bool = False
    return_slot: Callable[[], object] | None = None
    ended_at: float | None = None
    is_storing: bool = False
    is_finished: bool = False


class Leases:
    """The runs held by a process, by their tag. Any thread may call any method.

    Args:
        records: The job records, for the caller's threads.
        beat_records: The same over a client of its own, for the beat: no crowd of threads may keep it waiting.
        lease_seconds: How long a run keeps its job after the last renewal.
        max_deliveries: How often a job may lose its lease before it is set aside.

    Attributes:
        records: The job records.
        failed_beats: How many beats Redis, or a fault of ours, cut short.
        asked_at: The monotonic second at which this process last asked for a job.
        tell: Told of jobs that were set aside until it does not raise; it answers for them to their callers.
    """

    def __init__(self, records: Records, beat_records: Records, *, lease_seconds: float, max_deliveries: int) -> None:
        self.records = records
        self.failed_beats = 0
        self.tell: Callable[[Sequence[str]], object] | None = None
        self.asked_at = time.monotonic()
        self._deliveries: Counter[tuple[str, bool]] = Counter()
        self._counting = threading.Lock()
        self._max_deliveries = max_deliveries
        self._is_closing = False
        self._beat_records = beat_records
        self._lease_seconds = lease_seconds
        self._held: dict[str, Lease] = {}
        self._unfinished: set[str] = set()
        self._beginning = threading.Lock()  # a run begins or is handed back; all else here is one step of a dict's
        self._renew_at = 0.0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, queue: str) -> Delivery | None:
        """Take the first job of a queue; None where nothing waits."""
        asked_at = self.asked_at = time.monotonic()
        delivery = self.records.take(queue, self._lease_seconds)
        if delivery is not None:
            self._held[delivery.tag] = Lease(sure_until=asked_at + self._lease_seconds)
            with self._counting:
                self._deliveries[queue, delivery.run_count > 1] += 1
        return delivery

    def return_slot_with(self, tag: str, return_slot: Callable[[], object]) -> None:
        """Name what to call when this run no longer counts against the prefetch limit, ended or not."""
        if lease := self._held.get(tag):
            lease.return_slot = return_slot

    def begin(self, tag: str) -> bool:
        """Return whether the body of this run may start: whether the job still is its own.

        That costs a round trip only where the last renewal is too long ago, or the run was taken by another process
        (the parent of a forked pool). A run that may not start is forgotten, so that its ack ends nothing.
        """
        with self._beginning:
            lease = self._held.get(tag)
            if lease is not None:
                lease.is_begun = True
        if lease is not None and time.monotonic() < lease.sure_until:
            return True
        if lease is None and self._is_closing:
            return False  # handed back a moment ago
        try:
            return not self._renew([tag], self.records)
        except redis.RedisError as error:
            if not self.let_go(tag):
                raise  # nothing here keeps that process from ending the job
            logger.warning(Event("run_not_begun", run=tag, error=f"{type(error).__name__}: {error}"))
            return False

    def ended(self, tag: str) -> None:
        """Note that Celery is done with this run: its ack should follow, and a lease without one must not live on."""
        if lease := self._held.get(tag):
            lease.ended_at = time.monotonic()

    @contextmanager
    def storing(self, tag: str) -> Iterator[Lease]:
        """Store an answer within: where that ends the job as well, say so in ``is_finished``."""
        lease = self._held.get(tag) or Lease(sure_until=0.0)
        lease.is_storing = True
        try:
            yield lease
        finally:
            lease.is_storing = False

    def finish(self, tag: str) -> None:
        """End the job of this run. What Redis cannot be told now, the beat tells it later."""
        lease = self._held.get(tag)
        if not self.let_go(tag) or (lease is not None and lease.is_finished):
            return
        try:
            self.records.finish(tag)
        except redis.RedisError as error:
            logger.warning(Event("run_not_finished_yet", run=tag, error=f"{type(error).__name__}: {error}"))
            self._unfinished.add(tag)

    def let_go(self, tag: str) -> bool:
        """Forget a run and return its slot: its job returns to its queue when the lease runs out.

        Returns:
            Whether it was held. Whoever is told so, and nobody else, may say what becomes of the job.
        """
        lease = self._held.pop(tag, None)
        if lease is not None and lease.return_slot is not None:
            lease.return_slot()
        return lease is not None

    def park(self, tag: str, delay_seconds: float) -> None:
        """Give the job of this run back for a while; it regains its turn. The body raises ``Ignore`` then."""
        if self.let_go(tag):
            self.records.give_back([tag], delay_seconds)

    def refuse(self, tag: str, delay_seconds: float) -> None:
        """Give the job of this run back for a while for workers that can run it, and count that; as ``park``."""
        if self.let_go(tag):
            self.records.hand_back(tag, delay_seconds)

    def set_aside(self, tag: str, reason: str) -> None:
        """Take the job of this run out of the traffic; only its record stays."""
        if self.let_go(tag):
            self.records.set_aside(tag, reason)

    def is_begun(self, tag: str) -> bool:
        """Return whether the body of this run has begun."""
        lease = self._held.get(tag)
        return lease is not None and lease.is_begun

    def hand_back(self, *, also_begun: bool = False) -> int:
        """Give back what this process holds and has not begun, or all of it; return how many jobs that were.

        From then on nothing begins here that is handed back: the worker ends.
        """
        with self._beginning:
            self._is_closing = True
            tags = [tag for tag, lease in list(self._held.items()) if also_begun or not lease.is_begun]
            for tag in tags:  # at once: none of them may begin in between
                self.let_go(tag)
        return self.records.give_back(tags)

    @property
    def deliveries(self) -> dict[tuple[str, bool], int]:
        """How many jobs this process was given, by queue and whether another run had the job before."""
        with self._counting:
            return dict(self._deliveries)

    @property
    def held_count(self) -> int:
        """How many runs this process holds."""
        return len(self._held)

    def start(self) -> None:
        """Start the beat; nothing happens where it runs already."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="dspyq-beat", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the beat; the leases still held run out."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def beat(self) -> None:
        """Do one round of what keeps jobs moving. Its errors are counted and logged, never raised."""
        try:
            self._let_go_of_what_ended()
            if time.monotonic() >= self._renew_at:
                self._renew_all()
            self._finish_what_is_done()
            self._sweep()
        except Exception as error:  # a fault of ours must not take every other lease with it
            self.failed_beats += 1
            is_ours = not isinstance(error, redis.RedisError)
            logger.warning(Event("jobs_not_renewed", error=f"{type(error).__name__}: {error}"), exc_info=is_ours)

    def _run(self) -> None:
        interval_seconds = min(SWEEP_INTERVAL_SECONDS, self._lease_seconds / RENEWALS_PER_LEASE)
        self.beat()  # at once: workers that die young must sweep too
        # Not evenly: a sweep rings for jobs that were handed back, and Redis wakes whoever has waited longest. In step
        # with the second that each worker waits, that would be the one that cannot run the job, again and again.
        while not self._stopping.wait(interval_seconds * random.uniform(_SHORTEST_BEAT, 1)):  # noqa: S311 - jitter
            self.beat()

    def _let_go_of_what_ended(self) -> None:
        """Celery sends no ack where storing the result failed; renewed for ever, the job would be stranded."""
        too_long_ago = time.monotonic() - self._lease_seconds
        for tag, lease in list(self._held.items()):
            if lease.ended_at is not None and lease.ended_at < too_long_ago and self.let_go(tag):
                logger.warning(Event("run_not_acknowledged", run=tag))

    def _finish_what_is_done(self) -> None:
        for tag in list(self._unfinished):
            self._beat_records.finish(tag)
            self._unfinished.discard(tag)

    def _renew_all(self) -> None:
        renew_at = time.monotonic() + self._lease_seconds / RENEWALS_PER_LEASE
        if tags := [tag for tag, lease in list(self._held.items()) if not lease.is_finished]:
            self._renew(tags, self._beat_records)
        self._renew_at = renew_at

    def _renew(self, tags: Sequence[str], records: Records) -> frozenset[str]:
        asked_at = time.monotonic()
        lost = records.renew(tags, self._lease_seconds)
        for tag in set(tags) - lost:
            if lease := self._held.get(tag):
                lease.sure_until = asked_at + self._lease_seconds
        for tag in lost:
            lease = self._held.get(tag)
            if lease is not None and (lease.is_storing or lease.is_finished):
                continue  # its answer has ended its job, or Redis says with it that the job was lost
            if self.let_go(tag):
                logger.warning(Event("run_lost_its_job", run=tag))
        return lost

    def _sweep(self) -> None:
        for _ in range(SWEEPS_PER_BEAT):
            sweep = self._beat_records.sweep(self._max_deliveries, max(_LONGEST_GAP_SECONDS, self._lease_seconds / 2))
            if sweep.expired:
                logger.warning(Event("jobs_queued_again", reason="nobody renewed them", task_ids=list(sweep.expired)))
            if sweep.untold and self.tell:
                self.tell(sweep.untold)
            if sweep.is_complete:
                break


@functools.cache
def process_leases() -> Leases:
    """Return what this process holds."""
    settings = get_settings()
    return Leases(
        Records(jobs_client()),
        Records(connect(settings.jobs_url)),
        lease_seconds=settings.delivery.visibility_timeout_seconds,
        max_deliveries=settings.delivery.max_deliveries,
    )


# A forked child holds nothing of its parent's and has no beat.
os.register_at_fork(after_in_child=process_leases.cache_clear)
