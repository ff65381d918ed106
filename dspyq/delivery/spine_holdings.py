"""Jobs and shares of each Redis over which questions are spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dspyq.config.settings import get_settings
from dspyq.core.redis_address import parse_address
from dspyq.delivery.leases import process_leases
from dspyq.store.clients import jobs_client
from dspyq.store.keys import key
from dspyq.store.spines import BUCKETS, Spine, current_spine, on_each_spine, process_spines


@dataclass(frozen=True)
class SpineHoldings:
    """One server, at one moment.

    Attributes:
        name: Its address without secrets.
        share: The share of all questions that are asked there.
        moved_in: The share of all questions that are asked there since ``redis_urls`` changed.
        moved_out: The share of all questions that were asked there before.
        waiting: Jobs that wait for their turn.
        running: Jobs that workers hold.
        delayed: Jobs that are not due, or parked.
        dead: Jobs that were set aside.
        workers: Worker processes that take jobs from it; those that ended count for some seconds more.
        keys: Keys of its database, which are answers in the main; those of other applications too.
        is_draining: Whether it gets no new questions.
    """

    name: str
    share: float
    moved_in: float
    moved_out: float
    waiting: int
    running: int
    delayed: int
    dead: int
    workers: int
    keys: int
    is_draining: bool

    @property
    def is_empty(self) -> bool:
        """True if it holds no jobs."""
        return not (self.waiting or self.running or self.delayed or self.dead)


def read_spines() -> list[SpineHoldings]:
    """Return what each server holds.

    Raises:
        redis.RedisError: If one does not answer.
    """
    return on_each_spine(lambda: _read(current_spine()))


def describe_moves() -> list[str]:
    """Return a line for each server that others' questions move to, and for each that is drained."""
    spines = process_spines()
    if spines is None or not spines.moved:
        return []
    shares = [(spine.name, _shares(spine)) for spine in spines.all]
    lines = [f"{each['moved_in']:.1%} of the questions move to {name}" for name, each in shares if each["moved_in"]]
    drained = [f"{name} is drained; `dspyq spines` shows what it holds" for name, each in shares if not each["share"]]
    return lines + drained


def _read(spine: Spine | None) -> SpineHoldings:
    client = jobs_client()
    queues = process_leases().records.queues()
    pipeline = client.pipeline(transaction=False)
    for name in ("leases", "delayed", "dead"):
        pipeline.zcard(key(name))
    pipeline.zrange(key("workers"), 0, -1, withscores=True)
    pipeline.time()
    pipeline.dbsize()
    for queue in queues:
        pipeline.zcard(key(f"queue:{queue}"))
    running, delayed, dead, workers, (now, _), keys, *waiting = pipeline.execute()
    shares = _shares(spine)
    return SpineHoldings(
        name=str(parse_address(get_settings().jobs_url)) if spine is None else spine.name,
        waiting=sum(waiting),
        running=running,
        delayed=delayed,
        dead=dead,
        workers=sum(until > now for _, until in workers),
        keys=keys,
        is_draining=not shares["share"],
        **shares,
    )


def _shares(spine: Spine | None) -> Mapping[str, float]:
    spines = process_spines()
    if spines is None or spine is None:
        return {"share": 1.0, "moved_in": 0.0, "moved_out": 0.0}
    owned = spines.buckets(spine)
    return {
        "share": len(owned) / BUCKETS,
        "moved_in": sum(bucket in spines.moved for bucket in owned) / BUCKETS,
        "moved_out": sum(former is spine for former in spines.moved.values()) / BUCKETS,
    }
