"""Streams of jobs that others have sent."""

from __future__ import annotations

from dspyq.core.runtime import per_runtime
from dspyq.store.clients import jobs_client
from dspyq.store.scripts import Script, load_script


def want_stream(task_id: str) -> None:
    """Turn the stream of a task's next run on, for a caller that joined it; a run under way stays as it is.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    _script()(id=task_id)


@per_runtime
def _script() -> Script:
    return load_script(jobs_client(), "dspyq.streaming", "want")
