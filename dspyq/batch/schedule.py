"""The times of scheduled batches: found by whoever looks, claimed once, leased while they run.

All of it stands in Redis, by Redis's clock. Whoever looks at a batch adds the times that have come since anybody last
looked, so a night in which nothing ran is made good by the first look after it. Any number may look at once.
"""

from __future__ import annotations

import functools
import os
import platform
import uuid
from typing import Any, Literal, NamedTuple

import redis

from dspyq.config.batches import Batch
from dspyq.config.settings import get_settings
from dspyq.store.clients import KEY_PREFIX, jobs_client
from dspyq.store.scripts import load_script

State = Literal["pending", "running", "done", "failed", "skipped"]
End = Literal["done", "failed", "pending", "lost"]


class ClaimedTime(NamedTuple):
    """A time of a batch that is the caller's to run.

    Attributes:
        name: The batch's.
        label: The time's, as ``2026-11-24T22:00``.
        token: Says whose it is; no other claim has it.
    """

    name: str
    label: str
    token: str


class ScheduledTime(NamedTuple):
    """What is known of a time.

    Attributes:
        label: Its name, as ``2026-11-24T22:00``.
        due_at: In seconds since 1970, as are the others.
        state: ``pending``, ``running``, ``done``, ``failed``, or ``skipped`` for later ones.
        is_lost: Whether it is running and nobody renews its lease.
        runner: Who ran it last, as host and process id.
        started_at: When that was.
        ended_at: When it ended.
        exit_code: How.
        losses: How often its runner was lost.
        note: Why it ended, in one line.
    """

    label: str
    due_at: int
    state: State
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
        lease_seconds: How long a time stays with a runner that does not renew it.
        max_losses: How often the runner of a time may be lost before it has failed.
    """

    def __init__(self, client: redis.Redis, *, lease_seconds: float, max_losses: int) -> None:
        self.lease_seconds = lease_seconds
        self._client = client
        self._max_losses = max_losses
        names = ("look", "claim", "renew", "end", "again")
        self._scripts = {
            name: load_script(client, "dspyq.batch", f"schedule_{name}", library="schedule") for name in names
        }

    def claim(self, batch: Batch) -> ClaimedTime | None:
        """Add the times that have come and lease the oldest one that waits; None where none does, or one is running."""
        now, seen = map(float, self._scripts["look"](args=(batch.name,)))
        # One more than may wait, so that the oldest of too many is seen to be skipped.
        come = batch.crontab.latest(batch.catch_up + 1, after=seen, until=now)
        token = uuid.uuid4().hex
        label = self._scripts["claim"](
            args=(
                *(batch.name, token, f"{platform.node()}:{os.getpid()}", self.lease_seconds, batch.catch_up),
                *(self._max_losses, f"{now:.3f}"),
                *(part for each in come for part in (each.label, each.due_at)),
            )
        )
        return ClaimedTime(batch.name, label.decode(), token) if label else None

    def renew(self, claimed: ClaimedTime) -> bool:
        """Lease a time for as long again; return False where it is another's now."""
        return bool(self._scripts["renew"](args=(*claimed, self.lease_seconds)))

    def end(self, claimed: ClaimedTime, end: End, *, exit_code: int | None = None, note: str = "") -> bool:
        """End the run of a time; return False where it is another's now.

        Args:
            claimed: The time.
            end: ``pending`` where another is to go on, ``lost`` where the runner died, which is counted.
            exit_code: What it ended with, where it ended.
            note: Why, in one line and without content.
        """
        code = "" if exit_code is None else exit_code
        return bool(self._scripts["end"](args=(*claimed, end, code, note, self._max_losses)))

    def again(self, name: str, label: str) -> bool:
        """Let a time that has failed or was skipped have its turn again; return False where it is neither."""
        return bool(self._scripts["again"](args=(name, label)))

    def times(self, name: str, count: int = 1) -> list[ScheduledTime]:
        """Return the last times of a batch, the latest first."""
        times: Any = self._client.zrevrange(f"{KEY_PREFIX}batch-schedule:{name}", 0, count - 1, withscores=True)
        pipeline = self._client.pipeline(transaction=False)
        for label, _ in times:
            pipeline.hgetall(f"{KEY_PREFIX}batch-scheduled:{name}:{label.decode()}")
        pipeline.time()
        *hashes, (seconds, _) = pipeline.execute()
        return [
            _read(label.decode(), int(due_at), _decode(fields), seconds)
            for (label, due_at), fields in zip(times, hashes, strict=True)
            if fields
        ]


@functools.cache
def process_schedule() -> Schedule:
    """Return this process's view of the schedule."""
    delivery = get_settings().delivery
    return Schedule(
        jobs_client(), lease_seconds=delivery.visibility_timeout_seconds, max_losses=delivery.max_deliveries
    )


def _decode(fields: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields.items()}


def _read(label: str, due_at: int, fields: dict[str, str], now: float) -> ScheduledTime:
    started, ended, exit_code = (fields.get(name) for name in ("started", "ended", "exit_code"))
    state: Any = fields["state"]
    return ScheduledTime(
        label=label,
        due_at=due_at,
        state=state,
        is_lost=state == "running" and float(fields["lease"]) <= now,
        runner=fields.get("runner", ""),
        started_at=float(started) if started else None,
        ended_at=float(ended) if ended else None,
        exit_code=int(exit_code) if exit_code else None,
        losses=int(fields.get("losses", 0)),
        note=fields.get("note", ""),
    )
