"""Leases of the runs that this process holds."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import redis

from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.core.runtime import per_runtime
from dspyq.delivery.records import Delivery, Records
from dspyq.delivery.versions import process_versions
from dspyq.store.clients import jobs_client
from dspyq.store.spines import process_spines

if TYPE_CHECKING:
    from dspyq.config.schema import Settings

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3


@dataclass
class Lease:
    """A run that this worker holds.

    Attributes:
        sure_until: The monotonic second until which the lease is certainly ours, even if Redis fails.
        return_slot: Callback that lets the consumer prefetch one more job.
        is_begun: Whether its body has begun.
        ended_at: The monotonic second at which Celery was done with it, its result stored or not.
        is_storing: Whether its answer is being stored, which may end its job.
        is_finished: Whether storing the answer has ended its job; its ack is then a no-op.
    """

    sure_until: float
    is_begun: bool = False
    return_slot: Callable[[], object] | None = None
    ended_at: float | None = None
    is_storing: bool = False
    is_finished: bool = False

    def __enter__(self) -> Self:
        """Begin to store the answer."""
        self.is_storing = True
        return self

    def __exit__(self, *_: object) -> None:
        """Store no more."""
        self.is_storing = False


#: What a message holds beside its inputs, which it holds in base64.
_BESIDE_INPUTS_BYTES = 64 * 1024


class Leases:
    """The runs held by a process, by their tag. Any thread may call any method.

    Args:
        records: The job records.
        lease_seconds: Seconds that a run keeps its job after the last renewal.

    Attributes:
        records: The job records.
        lease_seconds: Seconds that a run keeps its job after the last renewal.
        asked_at: The monotonic second at which this process last asked for a job.
    """

    def __init__(self, records: Records, lease_seconds: float) -> None:
        self.records = records
        self.lease_seconds = lease_seconds
        self.asked_at = time.monotonic()
        self._deliveries: Counter[tuple[str, bool]] = Counter()
        self._counting = threading.Lock()
        self._is_closing = False
        self._held: dict[str, Lease] = {}
        self._unfinished: set[str] = set()
        self._beginning = threading.Lock()  # for begin and hand_back; all else is atomic in a dict
        self._renew_at = 0.0

    def take(self, queue: str) -> Delivery | None:
        """Take the first job of a queue; None if none waits."""
        taken = self.take_many(queue, most=1)
        return taken[0] if taken else None

    def take_many(self, queue: str, *, most: int) -> list[Delivery]:
        """Take jobs of a queue after one of its bells: more than one only where bells wait for a worker (take.lua)."""
        asked_at = self.asked_at = time.monotonic()
        version = process_versions().with_jobs_of(queue)
        taken = self.records.take_many(queue, self.lease_seconds, version, most=most)
        for delivery in taken:
            self._held[delivery.tag] = Lease(sure_until=asked_at + self.lease_seconds)
            with self._counting:
                self._deliveries[queue, delivery.run_count > 1] += 1
        return taken

    def return_slot_with(self, tag: str, return_slot: Callable[[], object]) -> None:
        """Set the callback for when this run no longer counts against the prefetch limit, ended or not."""
        if lease := self._held.get(tag):
            lease.return_slot = return_slot

    def begin(self, tag: str) -> bool:
        """Return True if the body of this run may start, as the job is still its own.

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
            return False  # just handed back
        try:
            return not self._renew([tag], self.records)
        except redis.RedisError as error:
            if not self.let_go(tag):
                raise  # nothing stops that process from ending the job
            logger.warning(Event("run_not_begun", run=tag, error=f"{type(error).__name__}: {error}"))
            return False

    def ended(self, tag: str) -> None:
        """Note that Celery is done with this run: its ack should follow, and a lease without an ack must end."""
        if lease := self._held.get(tag):
            lease.ended_at = time.monotonic()

    def storing(self, tag: str) -> Lease:
        """Return the lease as the context in which an answer is stored; if that ends the job, set ``is_finished``."""
        return self._held.get(tag) or Lease(sure_until=0.0)

    def finish(self, tag: str) -> None:
        """End the job of this run. If Redis does not answer, the beat ends it later."""
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
            True if it was held: then the caller alone decides about the job.
        """
        lease = self._held.pop(tag, None)
        if lease is not None and lease.return_slot is not None:
            lease.return_slot()
        return lease is not None

    def park(self, tag: str, delay_seconds: float) -> None:
        """Return the job of this run for a while; it keeps its turn. The body then raises ``Ignore``."""
        if self.let_go(tag):
            self.records.give_back([tag], delay_seconds)

    def sleep(self, tag: str, longest_seconds: float, *, is_stray: bool) -> None:
        """Put the job of this run to sleep until its calls in a lane have landed. The body then raises ``Ignore``."""
        if self.let_go(tag):
            self.records.sleep(tag, longest_seconds, is_stray=is_stray)

    def pass_on(self, tag: str, version: str) -> None:
        """Move the job of this run to the queue of its version, for workers of that version; otherwise as ``park``."""
        if self.let_go(tag):
            self.records.pass_on(tag, version)

    def set_aside(self, tag: str, reason: str) -> None:
        """Dead-letter the job of this run; only its record stays."""
        if self.let_go(tag):
            self.records.set_aside(tag, reason)

    def holds(self, tag: str) -> bool:
        """Return True if this process holds a run."""
        return tag in self._held

    def is_begun(self, tag: str) -> bool:
        """Return True if the body of this run has begun."""
        lease = self._held.get(tag)
        return lease is not None and lease.is_begun

    def give_back(self, tags: Sequence[str]) -> None:
        """Return the jobs of runs that were taken and cannot begin here to their queues, at their old turns."""
        if held := [tag for tag in tags if self.let_go(tag)]:
            self.records.give_back(held)

    def hand_back(self, *, also_begun: bool = False) -> int:
        """Return the jobs that this process has not begun, or all of its jobs, to their queues; return their number.

        After that no job handed back begins in this process: the worker is shutting down.
        """
        with self._beginning:
            self._is_closing = True
            tags = [tag for tag, lease in list(self._held.items()) if also_begun or not lease.is_begun]
            for tag in tags:  # at once: none of them may begin in between
                self.let_go(tag)
        return self.records.give_back(tags)

    @property
    def deliveries(self) -> dict[tuple[str, bool], int]:
        """Number of jobs taken by this process, by queue and by whether another run had the job before."""
        with self._counting:
            return dict(self._deliveries)

    @property
    def held_count(self) -> int:
        """Number of runs held by this process."""
        return len(self._held)

    def keep(self, records: Records) -> None:
        """Renew the leases that are due, let go of runs without an ack, and end jobs that Redis did not end earlier.

        Args:
            records: The job records over a client of the caller's own.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        self._let_go_of_what_ended()
        if time.monotonic() >= self._renew_at:
            self._renew_all(records)
        self._finish_what_is_done(records)

    def _let_go_of_what_ended(self) -> None:
        """Let go of runs without an ack, as after a failure to store the result: renewal would strand the job."""
        too_long_ago = time.monotonic() - self.lease_seconds
        for tag, lease in list(self._held.items()):
            if lease.ended_at is not None and lease.ended_at < too_long_ago and self.let_go(tag):
                logger.warning(Event("run_not_acknowledged", run=tag))

    def _finish_what_is_done(self, records: Records) -> None:
        for tag in list(self._unfinished):
            records.finish(tag)
            self._unfinished.discard(tag)

    def _renew_all(self, records: Records) -> None:
        renew_at = time.monotonic() + self.lease_seconds / RENEWALS_PER_LEASE
        if tags := [tag for tag, lease in list(self._held.items()) if not lease.is_finished]:
            self._renew(tags, records)
        self._renew_at = renew_at

    def _renew(self, tags: Sequence[str], records: Records) -> frozenset[str]:
        asked_at = time.monotonic()
        lost = records.renew(tags, self.lease_seconds)
        for tag in set(tags) - lost:
            if lease := self._held.get(tag):
                lease.sure_until = asked_at + self.lease_seconds
        for tag in lost:
            lease = self._held.get(tag)
            if lease is not None and (lease.is_storing or lease.is_finished):
                continue  # storing its answer ends its job, or reports that the job was lost
            if self.let_go(tag):
                logger.warning(Event("run_lost_its_job", run=tag))
        return lost


def most_message_bytes(settings: Settings) -> int:
    """Return the most bytes of a job's message."""
    largest_inputs = max((program.max_input_bytes for program in settings.programs.values()), default=0)
    return max(settings.delivery.max_job_bytes, 2 * largest_inputs + _BESIDE_INPUTS_BYTES)


@per_runtime(is_of_part=True)
def process_leases() -> Leases:
    """Return this process's leases."""
    settings = get_settings()
    records = Records(jobs_client(), most_message_bytes(settings))
    return Leases(records, settings.delivery.visibility_timeout_seconds)


def leases_of(tag: str) -> Leases:
    """Return the leases of the spine whose job a run has; where none holds it any more, those of its id's spine."""
    spines = process_spines()
    if spines is None:
        return process_leases()
    likely = spines.of(tag.rpartition(":")[0])  # not the one of a task whose id is its caller's own
    for spine in (likely, *spines.all):
        leases = spine.runtime.peek(process_leases)
        if leases is not None and leases.holds(tag):
            return leases
    with likely.runtime.active():
        return process_leases()
