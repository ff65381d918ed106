"""Processor time of a Redis server, for operations of this process, and jobs to do them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.harness import scheduled_seconds
from dspyq.cache.claim import Run, Stored
from dspyq.cache.claims import NewQuestions, process_claims
from dspyq.delivery.records import Records
from dspyq.store.clients import jobs_client
from dspyq.store.keys import job_key, key

#: The queue of the only variant there is.
QUEUE = "qa.control"
_JOBS_AT_ONCE = 500
_LEASE_SECONDS = 600
_ANSWER = b'{"status":"SUCCESS","result":{"answer":"' + b"x" * 200 + b'"},"traceback":null,"children":[]}'


class Question(NamedTuple):
    """A question as the end of its run needs it."""

    input_hash: str
    queue: str = QUEUE


def redis_seconds(redis_pid: int, calls: int, call: Callable[[int], object]) -> float:
    """Return what a call took of the server's processor; each is given its number."""
    began = scheduled_seconds(redis_pid)
    for number in range(calls):
        call(number)
    return (scheduled_seconds(redis_pid) - began) / calls


def put_jobs(task_ids: list[str], message: bytes) -> None:
    """Claim new questions and put their jobs, by the script that ``many()`` and batches use."""
    for start in range(0, len(task_ids), _JOBS_AT_ONCE):
        ids = task_ids[start : start + _JOBS_AT_ONCE]
        jobs: list[str | bytes] = [part for task_id in ids for part in (task_id, message)]
        questions = NewQuestions(
            queue=QUEUE, seen="", tenant="", input_hashes=[hash_of(task_id) for task_id in ids], jobs=jobs
        )
        if not all(process_claims().ask_new([questions], priority=0)):
            raise RuntimeError("a question that was to be new is not")


def hash_of(task_id: str) -> str:
    """Return an input hash that no other task's question has."""
    return task_id.replace("-", "").rjust(64, "0")


class Jobs:
    """The first jobs of the queue, taken and answered as a worker does."""

    def __init__(self) -> None:
        self._client = jobs_client()
        self._records = Records(self._client)
        self._hashes: dict[str, str] = {}

    def look_at(self, count: int) -> None:
        """Read which questions the next jobs answer: a worker has that from the message, without Redis."""
        ids = [each.decode() for each in self._client.zrange(key(f"queue:{QUEUE}"), 0, count - 1)]
        with self._client.pipeline() as pipeline:
            for task_id in ids:
                pipeline.hget(job_key(task_id), "input_hash")
            hashes = pipeline.execute()
        self._hashes = {task_id: each.decode() for task_id, each in zip(ids, hashes, strict=True)}

    def take(self) -> Run:
        """Wait for a bell and take a job, in two round trips."""
        self._client.brpop([QUEUE], timeout=10)
        (delivery,) = self._records.take_many(QUEUE, _LEASE_SECONDS, most=1)
        return Run(delivery.id, str(delivery.fence))

    def answer(self, run: Run) -> None:
        """Store a run's answer, which ends its job."""
        stored = Stored(_ANSWER, 3_600, 3_600, {"runs": 1, "successes": 1}, cost_nano_usd=1_000, is_last=True)
        kept = process_claims().answer(Question(self._hashes[run.task_id]), run, stored)
        if kept.name != "ENDED":
            raise RuntimeError(f"a run of this process is {kept.name}")
