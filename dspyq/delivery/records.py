"""The job records in Redis: each change of state is one script, and so one round trip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import redis

from dspyq.store.clients import KEY_PREFIX
from dspyq.store.scripts import load_script, run_together

#: The most jobs one script moves, so that Redis serves others in between.
BATCH_SIZE = 500
#: Within this, every worker that lives has beaten again after Redis was away.
_GRACE_SECONDS = 3.0


class Job(NamedTuple):
    """A message on its way into Redis.

    Attributes:
        id: The task's id.
        message: What a worker gets, as text or as its bytes.
        queue: The queue's name.
        priority: From 0, the most urgent, to 15.
        delay_seconds: How long it waits before it may be taken; not at all where it is not positive.
        generation: How often the task has published itself anew. A higher one ends the run of a lower one.
        is_child: Whether another task's run published it. Its run may be repeated; the child is not, once it is done.
    """

    id: str
    message: str | bytes
    queue: str
    priority: int = 0
    delay_seconds: float = 0.0
    generation: int = 0
    is_child: bool = False


class Delivery(NamedTuple):
    """A job leased to one run.

    Attributes:
        id: The task's id.
        fence: The number of this run; every later run of this id has a higher one.
        run_count: How many runs the job had, this one included.
        hand_backs: How often it was handed back by workers that cannot run it.
        message: The message's text.
        is_claimed: Whether its question is claimed for it, and was not answered when it was taken.
    """

    id: str
    fence: int
    run_count: int
    hand_backs: int
    message: bytes
    is_claimed: bool

    @property
    def tag(self) -> str:
        """The run's name, unlike that of any other run: Celery's delivery tag."""
        return f"{self.id}:{self.fence}"


class Sweep(NamedTuple):
    """What one sweep did.

    Attributes:
        due: How many delayed jobs were moved to their queues.
        rung: How many bells were rung for jobs that had none.
        expired: The ids of the jobs whose lease ran out.
        untold: The ids of jobs that were set aside, whose callers do not know yet; some of them, if there are many.
    """

    due: int
    rung: int
    expired: tuple[str, ...]
    untold: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing was left for another sweep right away."""
        return max(self.due, self.rung, len(self.expired)) < BATCH_SIZE


class Records:
    """The scripts, bound to a client.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        names = ("put", "take", "finish", "back", "renew", "sweep", "purge")
        self._scripts = {name: load_script(client, "dspyq.delivery", name, library="jobs") for name in names}

    def put(self, job: Job) -> bool:
        """Store a job and ring for it; return False where an older message of the same id stands for it."""
        return bool(self._scripts["put"](args=_put_arguments(job)))

    def put_many(self, jobs: Sequence[Job]) -> None:
        """Store jobs in one round trip, and ring for them."""
        put = self._scripts["put"]
        run_together(self._client, [put.step(bool, args=_put_arguments(job)) for job in jobs])

    def put_in_batch(self, job: Job, batch: Any) -> None:
        """Put a job when a kombu ``PublishBatch`` is flushed."""
        script = self._scripts["put"]
        batch.pipeline.scripts.add(script)  # its pipeline loads the script where Redis does not know it
        batch.add("evalsha", script.sha, 0, *_put_arguments(job))

    def take(self, queue: str, lease_seconds: float) -> Delivery | None:
        """Lease the first job of a queue to a new run."""
        reply = self._scripts["take"](args=(queue, lease_seconds))
        if reply is None:
            return None
        job_id, fence, run_count, hand_backs, message, is_claimed = reply
        return Delivery(job_id.decode(), fence, run_count, int(hand_backs), message, bool(is_claimed))

    def finish(self, tag: str) -> bool:
        """End the job of a run; return False where it is this run's no more."""
        return bool(self._scripts["finish"](args=_runs([tag])))

    def give_back(self, tags: Sequence[str], delay_seconds: float = 0.0) -> int:
        """Return the jobs of these runs to their old turns, now or later; return how many were theirs."""
        return self._back(tags, delay_seconds)

    def hand_back(self, tag: str, delay_seconds: float) -> bool:
        """Return the job of a run that this worker cannot run, and count that; return False where it is not its own."""
        return bool(self._back([tag], delay_seconds, is_hand_back=True))

    def set_aside(self, tag: str, reason: str) -> bool:
        """Take the job of a run out of the traffic, with its reason; return False where it is this run's no more."""
        return bool(self._back([tag], -1, reason))

    def renew(self, tags: Sequence[str], lease_seconds: float) -> frozenset[str]:
        """Lease the jobs of these runs for as long again; return the tags of those that lost theirs."""
        positions: list[int] = self._scripts["renew"](args=(lease_seconds, *_runs(tags)))
        return frozenset(tags[position - 1] for position in positions)

    def sweep(self, max_deliveries: int, longest_gap_seconds: float = math.inf) -> Sweep:
        """Move due jobs and those whose lease ran out to their queues, set the often lost aside, ring missing bells.

        Args:
            max_deliveries: How often a job may lose its lease before it is set aside.
            longest_gap_seconds: Where nobody swept for longer, Redis may have been away, and no lease runs out before
                its holder has had the time to renew it.
        """
        arguments = (BATCH_SIZE, max_deliveries, longest_gap_seconds, _GRACE_SECONDS)
        due, rung, expired, untold = self._scripts["sweep"](args=arguments)
        ids = [tuple(job_id.decode() for job_id in some) for some in (expired, untold)]
        return Sweep(due, rung, *ids)

    def purge(self, queue: str) -> int:
        """Remove every waiting job of a queue, neither delayed nor leased ones; return how many."""
        removed = 0
        while batch := int(self._scripts["purge"](args=(queue, BATCH_SIZE))):
            removed += batch
        return removed

    def backlog(self, queue: str) -> int:
        """Return how many jobs wait in a queue, delayed and leased ones left out."""
        return int(self._client.zcard(f"{KEY_PREFIX}queue:{queue}"))

    def is_job_queue(self, queue: str) -> bool:
        """Return whether a queue ever held a job."""
        return bool(self._client.sismember(f"{KEY_PREFIX}queues", queue))

    def _back(self, tags: Sequence[str], delay_seconds: float, reason: str = "", *, is_hand_back: bool = False) -> int:
        if not tags:
            return 0
        counted = "1" if is_hand_back else ""
        return int(self._scripts["back"](args=(delay_seconds, reason, counted, *_runs(tags))))


def _put_arguments(job: Job) -> tuple[str | bytes | int | float, ...]:
    return job.id, job.message, job.queue, job.priority, job.delay_seconds, job.generation, int(job.is_child)


def _runs(tags: Sequence[str]) -> list[str]:
    """Return the id and fence of each."""
    return [part for tag in tags for part in tag.rsplit(":", 1)]
