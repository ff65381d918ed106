"""Costs in Redis of the path of a question, of a sweep and of a scrape's reading, with so many jobs waiting."""

from __future__ import annotations

import json
from typing import Any, cast

from benchmarks.subjects.plain import new_question
from benchmarks.subjects.redis_costs import QUEUE, Jobs, put_jobs, redis_seconds
from benchmarks.turns import FOUND, GO, TURN
from dspyq import predict
from dspyq.delivery.backlog import Backlog
from dspyq.delivery.records import Records
from dspyq.store.clients import jobs_client
from dspyq.store.keys import job_key
from dspyq.store.scripts import run_together

_IDS = "00000000-0000-4000-8000-{:012x}"
_MAX_DELIVERIES = 5


def measure(size: int, calls: int, redis_pid: int) -> dict[str, Any]:
    """Let so many jobs wait, and measure a round of each operation whenever it is this server's turn.

    Args:
        size: The jobs that wait.
        calls: Calls of a round; as many jobs are asked for as are taken.
        redis_pid: The server's process.

    Returns:
        The bytes of a waiting job, and of its message.
    """
    client, jobs = jobs_client(), Jobs()
    records, backlog = Records(client), Backlog(client, [QUEUE])
    message = _real_message(records)
    empty_bytes = _used_bytes()
    put_jobs([_IDS.format(number) for number in range(size)], message)
    job_bytes = (_used_bytes() - empty_bytes) / size

    def ask(_: int) -> None:
        predict.delay(question=new_question())

    def take_and_answer(_: int) -> None:
        jobs.answer(jobs.take())

    def sweep(_: int) -> None:
        records.sweep(_MAX_DELIVERIES)

    def read(_: int) -> None:
        run_together(client, [backlog.read()])

    client.rpush(FOUND, "{}")  # ready
    while _is_next():
        found = {"ask": redis_seconds(redis_pid, calls, ask)}
        jobs.look_at(calls)
        found["take and answer"] = redis_seconds(redis_pid, calls, take_and_answer)
        found["sweep"] = redis_seconds(redis_pid, calls, sweep)
        found["backlog"] = redis_seconds(redis_pid, calls, read)
        if (left := records.backlog(QUEUE)) != size:
            raise RuntimeError(f"{left} jobs wait, not {size}")
        client.rpush(FOUND, json.dumps(found))
    return {"job_bytes": job_bytes, "message_bytes": len(message)}


def _is_next() -> bool:
    """Wait for this server's turn; return False if there are no more."""
    while (turn := cast("tuple[bytes, bytes] | None", jobs_client().blpop([TURN], timeout=1))) is None:
        pass
    return turn[1] == GO.encode()


def _real_message(records: Records) -> bytes:
    """Return the message of a job that ``delay()`` puts, as what all that wait have."""
    task_id = predict.delay(question=new_question()).id
    message = cast("bytes", jobs_client().hget(job_key(task_id), "message"))
    records.end([task_id])
    jobs_client().delete(QUEUE)  # its bell
    return message


def _used_bytes() -> int:
    used: int = jobs_client().info("memory")["used_memory"]
    return used
