"""Streams of jobs that others have sent."""

from __future__ import annotations

from collections.abc import Mapping

from dspyq.core.runtime import per_runtime
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import Script, load_script, run_together
from dspyq.store.spines import by_spine, place_of


def want_streams(tasks: Mapping[str, str]) -> None:
    """Turn the streams of tasks' next runs on, for callers that joined them; a run under way stays as it is.

    Args:
        tasks: The input hash of the question of each task.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    for _, own in by_spine(tasks, [place_of(question, task_id) for task_id, question in tasks.items()]):
        run_together(jobs_client(), [_script().step(int, id=task_id) for task_id in own])


@per_runtime(is_of_part=True)
def _script() -> Script:
    return load_script(jobs_client(), "dspyq.streaming", "want")
