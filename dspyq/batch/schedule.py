"""Times of scheduled batches: found by any process that checks, claimed once, leased while they run.

All state is in Redis, by Redis's clock. Each check of a batch adds the times that have come since the last check, so a
night without any worker is made up for by the first check after it. Any number of processes may check at once.
"""

from __future__ import annotations

import os
import platform
import uuid
from typing import Any, Literal, NamedTuple

import redis

from dspyq.config.batches import ScheduledBatch
from dspyq.config.settings import get_settings
from dspyq.core.runtime import per_runtime
from dspyq.core.tolerated import read_number, read_text
from dspyq.store.clients import money_client
from dspyq.store.keys import key
from dspyq.store.scripts import load_script

ScheduleState = Literal["pending", "running", "done", "failed", "skipped"]
End = Literal["done", "failed", "pending", "lost"]


class ClaimedTime(NamedTuple):
    """A scheduled time that the caller has claimed to run.

    Attributes:
        name: The batch's name.
        label: The time's label, as ``2026-11-24T22:00``.
        token: Token of the claim; unique.
    """

    name: str
    label: str
    token: str


class ScheduledTime(NamedTuple):
    """State of a scheduled time.

    Attributes:
        label: Its label, as ``2026-11-24T22:00``.
        due_at: Its time in seconds since 1970, like the other times.
        state: ``pending``, ``running``, ``done``, ``failed``, or ``skipped`` for later ones.
        is_lost: True if it is running but its lease is not renewed.
        runner: Its latest runner, as host and process id.
        started_at: Start of that run.
        ended_at: End of that run.
        exit_code: Exit code of that run.
        losses: Number of runners lost.
        note: Reason of its end, in one line.
    """

    label: str
    due_at: int
    state: ScheduleState
    is_lost: bool = False
    runner: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    losses: int = 0
    note: str = ""


class Schedule:
    """The scripts, bound to a client.

    Args:
        client: The Redis of jobs.
        lease_seconds: Time for which a runner keeps a scheduled time without renewal.
        max_losses: Number of lost runners after which a scheduled time has failed.
    """

    def __init__(self, client: redis.Redis, *, lease_seconds: float, max_losses: int) -> None:
        self.lease_seconds = lease_seconds
        self._client = client
        self._max_losses = max_losses
        names = ("look", "claim", "renew", "end", "again")
        self._scripts = {name: load_script(client, "dspyq.batch", f"schedule_{name}") for name in names}

    def claim(self, batch: ScheduledBatch) -> ClaimedTime | None:
        """Add times that have come and lease the oldest waiting one; None if none waits, or one is running."""
        now, seen = map(float, self._scripts["look"](name=batch.name))
        # One more than may wait, so that the oldest of too many is recorded as skipped.
        come = batch.crontab.latest(batch.catch_up + 1, after=seen, until=now)
        token = uuid.uuid4().hex
        label = self._scripts["claim"](
            name=batch.name,
            token=token,
            runner=f"{platform.node()}:{os.getpid()}",
            lease_seconds=self.lease_seconds,
            catch_up=batch.catch_up,
            max_losses=self._max_losses,
            seen=f"{now:.3f}",
            come=[part for each in come for part in (each.label, each.due_at)],
        )
        return ClaimedTime(batch.name, label.decode(), token) if label else None

    def renew(self, claimed: ClaimedTime) -> bool:
        """Renew the lease of a time; return False if another runner has it."""
        return bool(self._scripts["renew"](**claimed._asdict(), lease_seconds=self.lease_seconds))

    def end(self, claimed: ClaimedTime, end: End, *, exit_code: int | None = None, note: str = "") -> bool:
        """End the run of a time; return False if another runner has it.

        Args:
            claimed: The time.
            end: ``pending`` if another runner should continue, ``lost`` if the runner died, which is counted.
            exit_code: Its exit code, if it ended.
            note: The reason, in one line and without content.
        """
        code = "" if exit_code is None else exit_code
        outcome = {"state": end, "exit_code": code, "note": note, "max_losses": self._max_losses}
        return bool(self._scripts["end"](**claimed._asdict(), **outcome))

    def again(self, name: str, label: str) -> bool:
        """Queue a failed or skipped time again; return False if it is neither."""
        return bool(self._scripts["again"](name=name, label=label))

    def times(self, name: str, count: int = 1) -> list[ScheduledTime]:
        """Return the last times of a batch, the latest first."""
        times: Any = self._client.zrevrange(key(f"batch-schedule:{name}"), 0, count - 1, withscores=True)
        pipeline = self._client.pipeline(transaction=False)
        for label, _ in times:
            pipeline.hgetall(key(f"batch-scheduled:{name}:{label.decode()}"))
        pipeline.time()
        *hashes, (seconds, _) = pipeline.execute()
        return [
            _read(label.decode(), int(due_at), _decode(fields), seconds)
            for (label, due_at), fields in zip(times, hashes, strict=True)
            if fields
        ]


@per_runtime
def process_schedule() -> Schedule:
    """Return this process's view of the schedule."""
    delivery = get_settings().delivery
    return Schedule(
        money_client(), lease_seconds=delivery.visibility_timeout_seconds, max_losses=delivery.max_deliveries
    )


def _decode(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {read_text(name): read_text(value) for name, value in fields.items()}


def _read(label: str, due_at: int, fields: dict[str, str], now: float) -> ScheduledTime:
    started, ended, exit_code = (fields.get(name) for name in ("started", "ended", "exit_code"))
    state: Any = fields.get("state", "failed")
    return ScheduledTime(
        label=label,
        due_at=due_at,
        state=state,
        is_lost=state == "running" and read_number(fields.get("lease")) <= now,
        runner=fields.get("runner", ""),
        started_at=read_number(started) if started else None,
        ended_at=read_number(ended) if ended else None,
        exit_code=int(read_number(exit_code)) if exit_code else None,
        losses=int(read_number(fields.get("losses"))),
        note=fields.get("note", ""),
    )
