"""Counts of the calls that waited for a run which failed otherwise than through its release."""

from __future__ import annotations

from dspyq.store.clients import jobs_client
from dspyq.store.scripts import load_script


def count_failed_run(queue: str, task_id: str, fence: str) -> None:
    """Count the calls that waited for a run whose failure is about to be stored, unless its release has.

    Args:
        queue: The variant's.
        task_id: The task.
        fence: The number of the run; empty for a run without a job record.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    load_script(jobs_client(), "dspyq.experiments", "fail")(id=task_id, fence=fence, queue=queue)
