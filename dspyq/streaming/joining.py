"""Streams of jobs that others have sent."""

from __future__ import annotations

from collections.abc import Iterable

from dspyq.core.runtime import per_runtime
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import Script, load_script, run_together


def want_streams(task_ids: Iterable[str]) -> None:
    """Turn the streams of tasks' next runs on, for callers that joined them; a run under way stays as it is.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    if steps := [_script().step(int, id=task_id) for task_id in task_ids]:
        run_together(jobs_client(), steps)


@per_runtime(is_of_part=True)
def _script() -> Script:
    return load_script(jobs_client(), "dspyq.streaming", "want")
