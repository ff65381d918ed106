"""Queues for operators: whether each holds jobs, is configured, and has a worker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import redis

from dspyq.config.settings import Settings, get_settings
from dspyq.core.names import BATCH_QUEUE, DEFAULT_QUEUE
from dspyq.core.runtime import per_runtime
from dspyq.delivery.versions import base_queue, version_queue
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.key_bases import key_base
from dspyq.store.keys import binding_keys, job_key, key, statistics_key
from dspyq.store.spines import each_spine, on_each_spine

#: Separator in kombu's record of a binding: routing key, pattern and queue.
_BINDING_SEPARATOR = b"\x06\x16"
#: Most delayed and most leased jobs whose queue is looked up.
_LOOKED_AT = 10_000


class Queue(NamedTuple):
    """A queue that is configured, holds jobs, or left something behind.

    Attributes:
        name: Its name; a version's queue has its own.
        waiting: Jobs that wait for their turn.
        delayed: Jobs that are not due yet, or are parked for a while.
        leased: Jobs that workers hold.
        oldest_age_seconds: Age of the first waiting job; 0 if none waits.
        is_configured: Whether this configuration has it: a variant's, of this version, or Celery's default.
        is_served: Whether a live worker takes from it; one that this configuration lacks, in any version.
    """

    name: str
    waiting: int
    delayed: int
    leased: int
    oldest_age_seconds: float
    is_configured: bool
    is_served: bool

    @property
    def jobs(self) -> int:
        """Number of unfinished jobs."""
        return self.waiting + self.delayed + self.leased


class Queues:
    """Reads and empties queues.

    Args:
        settings: The configuration.
        client: The Redis of jobs.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._client = client
        self._configured = {name: name for name in (DEFAULT_QUEUE, BATCH_QUEUE)}
        for program in settings.programs.values():
            for variant in program.variants.values():
                served_as = version_queue(variant.queue, program.fingerprints[variant.name])
                self._configured |= {variant.queue: served_as, served_as: served_as}

    def all(self) -> list[Queue]:
        """Return every queue, by name.

        Raises:
            redis.RedisError: If Redis does not answer.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.smembers(key("queues"))
        pipeline.zrange(key("served"), 0, -1, withscores=True)
        pipeline.time()
        for place in ("delayed", "leases"):
            pipeline.zrange(key(place), 0, _LOOKED_AT - 1)
        with_jobs, served, (seconds, _), delayed, leased = pipeline.execute()
        alive = {name.decode(errors="replace") for name, until in served if until > seconds}
        counts = {"delayed": self._by_queue(delayed), "leased": self._by_queue(leased)}
        names = {name.decode(errors="replace") for name in with_jobs} | {*counts["delayed"], *counts["leased"]}
        names |= {name for name in self._configured if name == base_queue(name)} | self._counted()
        names |= self._bindings().keys()
        in_any_version = alive | {base_queue(name) for name in alive}
        return [
            Queue(
                name,
                waiting,
                counts["delayed"][name],
                counts["leased"][name],
                age_seconds,
                is_configured=name in self._configured,
                is_served=self._configured.get(name, name) in (alive if name in self._configured else in_any_version),
            )
            for name, waiting, age_seconds in self._waiting(sorted(names), seconds)
        ]

    def strays(self) -> list[Queue]:
        """Return queues that hold jobs but are not in this configuration."""
        return list(filter(_is_stray, self.all()))

    def job_ids(self, name: str, limit: int = 500) -> list[str]:
        """Return ids of a queue's jobs that no worker holds; only some if there are many."""
        waiting = cast("list[bytes]", self._client.zrange(key(f"queue:{name}"), 0, limit - 1))
        if waiting:
            return [job_id.decode() for job_id in waiting]
        delayed = cast("list[bytes]", self._client.zrange(key("delayed"), 0, _LOOKED_AT - 1))
        queues = self._queues_of(delayed)
        return [job_id.decode() for job_id, queue in zip(delayed, queues, strict=True) if queue == name][:limit]

    def forget(self, names: Iterable[str]) -> int:
        """Delete statistics, bells and bindings of queues without jobs; return the number of queues."""
        pipeline, bound_at_home = self._client.pipeline(), money_client().pipeline()
        number = 0
        bindings = self._bindings()
        for name in names:
            for member in bindings.get(name, ()):
                for bound in binding_keys(DEFAULT_QUEUE):
                    bound_at_home.srem(bound, member)
            number += 1
            pipeline.delete(statistics_key(name), key_base() + name)
            pipeline.srem(key("queues"), name)
            pipeline.hdel(key("unserved"), name)
        bound_at_home.execute()
        pipeline.execute()
        return number

    def _counted(self) -> set[str]:
        prefix = statistics_key("")
        return {
            name.decode(errors="replace").removeprefix(prefix)
            for name in self._client.scan_iter(prefix + "*", count=1000)
        }

    def _bindings(self) -> dict[str, list[bytes]]:
        """Return the queues that kombu has bound for us, each with the members of the binding."""
        found: dict[str, list[bytes]] = {}
        for member in cast("set[bytes]", money_client().sunion(list(binding_keys(DEFAULT_QUEUE)))):
            *_, name = member.rpartition(_BINDING_SEPARATOR)
            found.setdefault(name.decode(errors="replace"), []).append(member)
        return found

    def _by_queue(self, job_ids: Sequence[bytes]) -> Counter[str]:
        return Counter(queue for queue in self._queues_of(job_ids) if queue)

    def _queues_of(self, job_ids: Sequence[bytes]) -> list[str]:
        pipeline = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hget(job_key(job_id.decode(errors="replace")), "queue")
        return [(queue or b"").decode(errors="replace") for queue in pipeline.execute()] if job_ids else []

    def _waiting(self, names: Sequence[str], now_seconds: float) -> list[tuple[str, int, float]]:
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.zcard(key(f"queue:{name}"))
            pipeline.zrange(key(f"queue:{name}"), 0, 0)
        replies: list[Any] = pipeline.execute()
        firsts = [first[0].decode(errors="replace") if first else "" for first in replies[1::2]]
        pipeline = self._client.pipeline(transaction=False)
        for first in firsts:
            pipeline.hget(job_key(first), "put_at")
        put_at = [float(second or now_seconds) for second in pipeline.execute()]
        ages = [max(0.0, now_seconds - second) for second in put_at]
        return list(zip(names, replies[::2], ages, strict=True))


class FleetQueues:
    """Reads and empties the queues of all spines; what each holds is added up."""

    def all(self) -> list[Queue]:
        """Return every queue, by name; see ``Queues.all``.

        Raises:
            redis.RedisError: If a Redis does not answer.
        """
        found: dict[str, list[Queue]] = {}
        for _ in each_spine():
            for queue in process_queues().all():
                found.setdefault(queue.name, []).append(queue)
        return [_added_up(found[name]) for name in sorted(found)]

    def strays(self) -> list[Queue]:
        """Return queues that hold jobs but are not in this configuration."""
        return list(filter(_is_stray, self.all()))

    def job_ids(self, name: str, limit: int = 500) -> list[str]:
        """Return ids of a queue's jobs that no worker holds; only some if there are many."""
        return [job_id for ids in on_each_spine(lambda: process_queues().job_ids(name, limit)) for job_id in ids]

    def forget(self, names: Iterable[str]) -> int:
        """Delete statistics, bells and bindings of queues without jobs; return the number of queues."""
        listed = list(names)
        return max(on_each_spine(lambda: process_queues().forget(listed)))


def _added_up(parts: Sequence[Queue]) -> Queue:
    """Return a queue as all spines have it: it is served where workers take from each spine that has jobs of it."""
    holding = [part.is_served for part in parts if part.jobs]
    return parts[0]._replace(
        waiting=sum(part.waiting for part in parts),
        delayed=sum(part.delayed for part in parts),
        leased=sum(part.leased for part in parts),
        oldest_age_seconds=max(part.oldest_age_seconds for part in parts),
        is_served=all(holding) if holding else any(part.is_served for part in parts),
    )


def _is_stray(queue: Queue) -> bool:
    return bool(queue.jobs) and not queue.is_configured and not queue.is_served


def stray_queues(queues: Queues | FleetQueues | None = None) -> list[str]:
    """Return a warning for each queue that holds jobs but is not in this configuration.

    Args:
        queues: The queues to look at; left out, those of the active spine.

    Raises:
        redis.RedisError: If Redis does not answer.
    """
    return [
        f"queue {queue.name} holds {queue.jobs:,} jobs, but is not configured and no worker takes from it: "
        f"bring its program or version back, or end them with: dspyq queues drain {queue.name}"
        for queue in (queues or process_queues()).strays()
    ]


@per_runtime(is_of_part=True)
def process_queues() -> Queues:
    """Return this process's view of the queues of the active spine."""
    return Queues(get_settings(), jobs_client())
