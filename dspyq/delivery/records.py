"""The job records in Redis: each change of state is one script, and so one round trip."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import redis

from dspyq.core.ids import new_id
from dspyq.core.names import DEFAULT_MAX_JOB_BYTES
from dspyq.core.tolerated import tolerate
from dspyq.delivery.versions import SERVED_SECONDS, base_queue
from dspyq.errors import InputsTooLarge, InvalidOption
from dspyq.experiments.fence import ANY_STATE, StateChanged
from dspyq.store.keys import key
from dspyq.store.scripts import Step, load_script, run_together

#: Error for a task id, chosen by a caller, that another question has.
TAKEN_ID = (
    "task_id is another question's, whose job or answer is still there: give each question a task id of its own, "
    "or leave task_id out"
)
_ID_IS_TAKEN = -1
#: The most jobs one script moves, so that Redis serves others in between.
BATCH_SIZE = 500
#: Time within which every live worker has sent a beat again after Redis was down.
_GRACE_SECONDS = 3.0


class QueuedJob(NamedTuple):
    """A message on its way into Redis.

    Attributes:
        id: The task's id.
        message: The message for a worker, as text or bytes.
        queue: The queue's name.
        priority: From 0, the most urgent, to 15.
        delay_seconds: Time before it may be taken; none if not positive.
        generation: Number of times that the task has republished itself. A higher one ends the run of a lower one.
        is_child: Whether another task's run published it. Its run may be repeated; the child is not, once it is done.
        input_hash: The question of a prediction; empty for any other task.
        is_own_id: Whether the prediction's caller chose the id, which must then be no other question's.
        result_key: Key of the result under that id, if results are in the Redis of jobs.
        seen: The version of the experiment's state that gave the prediction its queue; ``ANY_STATE`` where none did, or
            a claim checked it.
        tenant: The tenant among whose jobs it has its turn; empty for none.
    """

    id: str
    message: str | bytes
    queue: str
    priority: int = 0
    delay_seconds: float = 0.0
    generation: int = 0
    is_child: bool = False
    input_hash: str = ""
    is_own_id: bool = False
    result_key: str = ""
    seen: str = ANY_STATE
    tenant: str = ""


class Delivery(NamedTuple):
    """A job leased to one run.

    Attributes:
        id: The task's id.
        fence: The number of this run; every later run of this id has a higher one.
        run_count: Number of runs of the job, including this one.
        is_given_up: Whether it has waited too long for a worker of its version.
        message: The message's text.
        is_claimed: Whether its question is claimed for it, and was not answered when it was taken.
        disowned_by: The batch that its message names and that does not pay for it any more; empty for none.
        is_streamed: Whether a caller who joined it has it streamed.
    """

    id: str
    fence: int
    run_count: int
    is_given_up: bool
    message: bytes
    is_claimed: bool
    disowned_by: str = ""
    is_streamed: bool = False

    @property
    def tag(self) -> str:
        """Unique name of the run: Celery's delivery tag."""
        return f"{self.id}:{self.fence}"


class Sweep(NamedTuple):
    """Results of one sweep.

    Attributes:
        due: Number of delayed jobs moved to their queues.
        rung: Number of bells rung for jobs that had none.
        expired: The ids of the jobs whose lease ran out.
        unnotified: The ids of jobs set aside whose callers are not notified yet; only some of them if there are many.
        versions: The versions' queues that hold jobs.
        unserved: Those of them that this sweep first found without a worker, with the number of their jobs.
        given_up: Number of jobs that waited too long for a worker of their version.
        cancelled: The ids of cancelled jobs whose ends this worker is to store.
    """

    due: int
    rung: int
    expired: tuple[str, ...]
    unnotified: tuple[str, ...]
    versions: frozenset[str] = frozenset()
    unserved: tuple[tuple[str, int], ...] = ()
    given_up: int = 0
    cancelled: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Return True if another sweep would find nothing more to do right away."""
        return max(self.due, self.rung, len(self.expired), self.given_up, len(self.cancelled)) < BATCH_SIZE


def check_put(replies: Iterable[object]) -> None:
    """Check the replies of ``put`` to several jobs.

    Raises:
        InvalidOption: If the id of one is another question's.
        StateChanged: If the experiment of one has another state than the one that gave it its queue.
    """
    for reply in replies:
        if reply == _ID_IS_TAKEN:
            raise InvalidOption(TAKEN_ID)
        if isinstance(reply, list):
            version, stored = reply
            raise StateChanged(version.decode(), stored)


class Records:
    """The scripts, bound to a client.

    Args:
        client: The Redis of jobs.
        most_bytes: The most bytes of a job's message.
    """

    def __init__(self, client: redis.Redis, most_bytes: int = DEFAULT_MAX_JOB_BYTES) -> None:
        self._client = client
        self._most_bytes = most_bytes
        self._worker = new_id()
        names = ("put", "take", "finish", "back", "renew", "sleep", "wake", "sweep", "purge", "end")
        self._scripts = {name: load_script(client, "dspyq.delivery", name) for name in names}

    def put(self, job: QueuedJob) -> bool:
        """Store a job and ring its bell; return False if an older message of the same id is kept instead.

        Raises:
            InvalidOption: If its id is another question's.
            InputsTooLarge: If its message is larger than it may be.
            StateChanged: If its experiment has another state than the one that gave it its queue.
        """
        (reply,) = run_together(self._client, [self._put(job)])
        check_put([reply])
        return bool(reply == 1)

    def check_size(self, message: str | bytes) -> None:
        """Refuse a job whose message is too large.

        Raises:
            InputsTooLarge: If it is larger than it may be.
        """
        if len(message) > self._most_bytes:
            raise InputsTooLarge(
                f"the job's message takes {len(message):,} bytes, with inputs, links and headers, more than the "
                f"{self._most_bytes:,} of delivery.max_job_bytes"
            )

    def put_many(self, jobs: Sequence[QueuedJob]) -> None:
        """Store jobs in one round trip, and ring their bells.

        Raises:
            InvalidOption: If the id of one is another question's; the others are stored.
            StateChanged: As of ``put``; the others are stored.
            InputsTooLarge: If a message is larger than it may be; nothing is stored.
        """
        check_put(run_together(self._client, [self._put(job) for job in jobs]))

    def put_in_batch(self, job: QueuedJob, batch: Any) -> None:
        """Put a job when a kombu ``PublishBatch`` is flushed."""
        put = self._put(job)
        batch.pipeline.scripts.add(put.script)  # its pipeline loads the script if Redis lacks it
        # Not by kombu's method, which would put a global key prefix before the first argument.
        batch.add("execute_command", *put.command)

    def take(self, queue: str, lease_seconds: float, version: str = "") -> Delivery | None:
        """Lease the first job of a queue, or of it and the queue of one version, to a new run."""
        taken = self.take_many(queue, lease_seconds, version, most=1)
        return taken[0] if taken else None

    def take_many(self, queue: str, lease_seconds: float, version: str = "", *, most: int) -> list[Delivery]:
        """Lease jobs as ``take``: the first, and one for each further bell of the queue that no worker waits for.

        Args:
            queue: The queue whose bell rang.
            lease_seconds: Seconds until the runs lose their jobs, unless they are renewed.
            version: The queue of the worker's version; empty where no jobs wait there.
            most: The most jobs to take, at least 1.
        """
        taken = self._scripts["take"](
            queue=queue,
            lease_seconds=lease_seconds,
            version_queue=version,
            most_bytes=self._most_bytes,
            most=most,
        )
        return [delivery for reply in taken if (delivery := self._delivery(reply)) is not None]

    def _delivery(self, reply: list[Any]) -> Delivery | None:
        job_id, fence, run_count, is_given_up, message, is_claimed, disowned_by, is_streamed = reply
        try:
            name = job_id.decode()
        except UnicodeDecodeError as error:  # no id of a task
            tolerate("list_item", error)
            self._scripts["finish"](id=job_id, fence=fence)
            return None
        disowned = disowned_by.decode()
        return Delivery(
            name, fence, run_count, bool(is_given_up), message, bool(is_claimed), disowned, bool(is_streamed)
        )

    def finish(self, tag: str) -> bool:
        """End the job of a run; return False if it is no longer this run's."""
        job_id, fence = tag.rsplit(":", 1)
        return bool(self._scripts["finish"](id=job_id, fence=fence))

    def give_back(self, tags: Sequence[str], delay_seconds: float = 0.0) -> int:
        """Return the jobs of these runs to their old turns, now or later; return the number that were theirs."""
        return self._back(tags, delay_seconds)

    def sleep(self, tag: str, longest_seconds: float, *, is_stray: bool) -> bool:
        """Put the job of a run to sleep until its lines in a lane have landed; return False if it was not the run's.

        Args:
            tag: The run.
            longest_seconds: Seconds after which it is taken again all the same.
            is_stray: Whether its program did not ask again what it had asked before.
        """
        job_id, fence = tag.rsplit(":", 1)
        stray = "1" if is_stray else ""
        reply = self._scripts["sleep"](id=job_id, fence=fence, longest_seconds=longest_seconds, is_stray=stray)
        return bool(reply)

    def wake(self, job_ids: Sequence[str]) -> int:
        """Wake jobs that sleep for their calls in a lane, whose further calls are made live; return their number."""
        return int(self._scripts["wake"](ids=job_ids)) if job_ids else 0

    def pass_on(self, tag: str, version: str) -> bool:
        """Move the job of a run to the queue of its version; return False if it is no longer this run's."""
        return bool(self._back([tag], 0, version=version))

    def set_aside(self, tag: str, reason: str) -> bool:
        """Dead-letter the job of a run, with a reason; return False if it is no longer this run's."""
        return bool(self._back([tag], -1, reason))

    def renew(self, tags: Sequence[str], lease_seconds: float) -> frozenset[str]:
        """Renew the leases of these runs; return the tags of runs that lost their jobs."""
        positions: list[int] = self._scripts["renew"](lease_seconds=lease_seconds, runs=_runs(tags))
        return frozenset(tags[position - 1] for position in positions)

    def sweep(
        self,
        max_deliveries: int,
        longest_gap_seconds: float = math.inf,
        *,
        version_wait_seconds: float = math.inf,
        dead: tuple[int, float] = (10_000, 30 * 86_400.0),
        served: Sequence[str] = (),
    ) -> Sweep:
        """Queue due jobs and those with expired leases, dead-letter jobs lost too often, and ring missing bells.

        Args:
            max_deliveries: How often a job may lose its lease before it is set aside.
            longest_gap_seconds: If no sweep ran for longer, Redis may have been down, and no lease expires before
                its holder has had the time to renew it.
            version_wait_seconds: How long a job waits for a worker of its version.
            dead: Number of dead-lettered jobs to keep, and the seconds to keep them.
            served: Queues and versions to announce for this worker; see ``Versions``.
        """
        most_dead, dead_seconds = dead
        reply = self._scripts["sweep"](
            limit=BATCH_SIZE,
            max_lost=max_deliveries,
            gap=longest_gap_seconds,
            grace=_GRACE_SECONDS,
            version_wait=version_wait_seconds,
            most_dead=most_dead,
            dead_seconds=dead_seconds,
            served_seconds=SERVED_SECONDS,
            worker=self._worker if served else "",
            served=served,
        )
        due, rung, expired, unnotified, versions, unserved, given_up, cancelled = reply
        return Sweep(
            due,
            rung,
            expired=tuple(_texts(expired)),
            unnotified=tuple(_texts(unnotified)),
            versions=frozenset(_texts(versions)),
            unserved=tuple(zip(_texts(unserved[::2]), unserved[1::2], strict=True)),
            given_up=given_up,
            cancelled=tuple(_texts(cancelled)),
        )

    def purge(self, queue: str) -> int:
        """Remove the waiting jobs of a queue in all versions, not delayed or leased ones; return their number."""
        removed = 0
        for name in (queue, *self.versions_of(queue)):
            while batch := int(self._scripts["purge"](queue=name, limit=BATCH_SIZE)):
                removed += batch
        return removed

    def end(self, job_ids: Sequence[str], *, is_answered: bool = False) -> list[bytes]:
        """End jobs in any state, running ones too; return their messages, b"" for a job without one.

        Args:
            job_ids: The jobs.
            is_answered: Whether results are stored, or no caller waits for them. Of the others a worker stores that
                they were cancelled: a producer may not write results.
        """
        messages: list[bytes] = self._scripts["end"](is_answered="1" if is_answered else "", ids=job_ids)
        return messages

    def versions_of(self, queue: str) -> list[str]:
        """Return the versions' queues of a queue that hold jobs."""
        return sorted(name for name in self.queues() if name != queue and base_queue(name) == queue)

    def backlog(self, queue: str) -> int:
        """Return the number of waiting jobs of a queue, without delayed and leased ones."""
        return int(self._client.zcard(key(f"queue:{queue}")))

    def queues(self) -> frozenset[str]:
        """Return the queues that hold jobs, or held some at the last sweep."""
        return frozenset(_texts(cast("set[bytes]", self._client.smembers(key("queues")))))

    def is_job_queue(self, queue: str) -> bool:
        """Return True if a queue holds jobs."""
        return bool(self._client.sismember(key("queues"), queue))

    def _put(self, job: QueuedJob) -> Step[object]:
        self.check_size(job.message)
        arguments: dict[str, Any] = {
            "id": job.id,
            "message": job.message,
            "queue": job.queue,
            "priority": job.priority,
            "delay_seconds": job.delay_seconds,
            "generation": job.generation,
            "is_child": "1" if job.is_child else "",
            "seen": job.seen,
        }
        if job.input_hash:
            arguments["input_hash"] = job.input_hash
        if job.is_own_id:
            arguments |= {"is_own_id": "1", "result_key": job.result_key}
        if job.tenant:
            arguments["tenant"] = job.tenant
        return self._scripts["put"].step(_as_it_is, **arguments)

    def _back(self, tags: Sequence[str], delay_seconds: float, reason: str = "", *, version: str = "") -> int:
        if not tags:
            return 0
        arguments = {"delay_seconds": delay_seconds, "reason": reason, "version_queue": version}
        return int(self._scripts["back"](runs=_runs(tags), **arguments))


def _as_it_is(reply: object) -> object:
    return reply


def _texts(names: Iterable[bytes]) -> list[str]:
    return [name.decode(errors="replace") for name in names]


def _runs(tags: Sequence[str]) -> list[str]:
    """Return the id and fence of each tag."""
    return [part for tag in tags for part in tag.rsplit(":", 1)]
