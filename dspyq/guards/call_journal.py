"""What a job has paid for, kept in Redis while the job lives.

A run that follows a parked or killed one neither pays again for a reply nor forgets what was spent.
"""

from __future__ import annotations

from typing import cast

import orjson
import redis

from dspyq.guards.ledger import CallRecord, EarlierRuns, Job
from dspyq.store.clients import KEY_PREFIX
from dspyq.store.scripts import Step, load_script

_CALL, _REPLY, _RUNNING = "call:", "reply:", "running_seconds"


class PaidCalls:
    """The model calls of jobs, by task.

    Args:
        client: The Redis of jobs.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._remember = load_script(client, "dspyq.guards", "remember")

    def of(self, task_id: str, variant: str) -> EarlierRuns:
        """Return what earlier runs of a job did, as this variant: its own, or one that answers as a fallback.

        Raises:
            redis.RedisError: If Redis does not say.
        """
        stored = cast("dict[bytes, bytes]", self._client.hgetall(f"{KEY_PREFIX}calls:{task_id}"))
        fields = {name.decode(): value for name, value in stored.items()}
        calls = [
            CallRecord(**orjson.loads(value))
            for name, value in fields.items()
            if name.startswith(_CALL) and f":{variant}:" in name
        ]
        return EarlierRuns(
            calls=tuple(sorted(calls, key=lambda call: call.began_at)),
            replies={name.removeprefix(_REPLY): value for name, value in fields.items() if name.startswith(_REPLY)},
            running_seconds=float(fields.get(_RUNNING, 0.0)),
        )

    def remember(self, job: Job, attempt_id: str, call: CallRecord, reply: bytes | None) -> Step[bool]:
        """Keep an attempt, and the reply it brought; the step says whether the run still has its job.

        Args:
            job: Whose it is.
            attempt_id: ``<fence>:<variant>:<number>``, unlike that of any other attempt of the job.
            call: What is known of it.
            reply: As the engine can load it again; None for an attempt that failed.
        """
        fields: list[str | bytes] = [_CALL + attempt_id, orjson.dumps(call)]
        if reply is not None:
            fields += [_REPLY + call.key, reply]
        return self._remember.step(bool, args=[job.task_id, job.fence, *fields])

    def remember_running_time(self, job: Job, seconds: float) -> None:
        """Keep how long all runs of a job took together, for its deadline."""
        self._remember(args=[job.task_id, job.fence, _RUNNING, f"{seconds:.3f}"])
