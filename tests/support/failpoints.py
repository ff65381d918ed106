"""Ends its process at a named point of a job's path, as a host that dies exactly there.

A worker loads it through ``workers.imports``, a producer by importing it. Nothing happens unless the environment says
so:

- ``TEST_FAILPOINTS=1``: the Redis key ``failpoint`` names a point; the first process that reaches it deletes the key
  and dies.
- ``TEST_FAILPOINT=after-take``: dies there with ``TEST_FAILPOINT_PROBABILITY`` (1 where left out), drawn from a
  generator seeded with ``TEST_FAILPOINT_SEED``, and leaves a ``Death`` in the Redis list ``failpoint-deaths``; not once
  that has ``TEST_FAILPOINT_DEATHS`` of them.
- ``TEST_CLOCK_AHEAD_SECONDS=60``: its wall clock is wrong by so much; monotonic time is not.

On a job's way: ``after-claim`` and ``mid-put`` (in its producer), ``after-bell``, ``mid-take``, ``after-take``,
``after-begin``, ``before-store``, ``mid-store``, ``after-store``, ``mid-chord`` (its last task is done, its body is not
called), ``before-ack``, ``mid-finish`` (of a job that did not end with its answer), ``after-finish``; and beside it
``mid-renew``, ``mid-sweep``, ``after-sweep``.
In the middle of something means: Redis has been told to do it, and its reply is not read.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import redis.connection

from dspyq.cache.claims import Claims
from dspyq.celery_app.result_backend import PredictionBackend
from dspyq.config.settings import get_settings
from dspyq.core.runtime import in_all_runtimes
from dspyq.delivery.leases import Leases, process_leases
from dspyq.delivery.records import Records
from dspyq.delivery.transport import BELL, Transport
from dspyq.store import wire
from dspyq.store.clients import connect, money_client
from dspyq.store.spines import jobs_url

ONCE_KEY = "failpoint"
DEATHS_KEY = "failpoint-deaths"


@dataclass(frozen=True)
class Death:
    """The record that a process left behind when it killed itself.

    Attributes:
        point: Where.
        at_seconds: When, since 1970 by the host's clock.
        held: The ids of the jobs it held; of a process that held none, the one it was about to take or had claimed.
        paid: How many of them had called their model, or were about to, and had no answer stored.
    """

    point: str
    at_seconds: float
    held: tuple[str, ...]
    paid: int


def read_deaths(client: redis.Redis) -> list[Death]:
    """Return all deaths since the list was emptied, in their order."""
    records = [json.loads(record) for record in client.lrange(DEATHS_KEY, 0, -1)]
    return [Death(**record | {"held": tuple(record["held"])}) for record in records]


class _Points:
    """Decides where this process dies."""

    def __init__(self) -> None:
        self.dies_once = os.environ.get("TEST_FAILPOINTS") == "1"
        self.point = os.environ.get("TEST_FAILPOINT")
        self._probability = float(os.environ.get("TEST_FAILPOINT_PROBABILITY", "1"))
        self._most_deaths = int(os.environ.get("TEST_FAILPOINT_DEATHS", sys.maxsize))
        self._random = random.Random(os.environ.get("TEST_FAILPOINT_SEED"))  # noqa: S311 - no secret
        self._lock = threading.Lock()
        self.taking = threading.RLock()  # when this process dies, a job is taken and in its record, or it is not taken
        self._unpaid_tags: set[str] = set()
        self.doing = threading.local()  # .action: what Redis is being told by this thread; .job_id; .tag

    def reach(self, point: str, job_id: str | None = None) -> None:
        """Die, if this is the point."""
        if self.dies_once and self._is_named_once(point):
            os.kill(os.getpid(), signal.SIGKILL)
        if point != self.point:
            return
        with self._lock, self.taking:  # one death, one record
            if self._random.random() < self._probability and self._leave_record(job_id):
                os.kill(os.getpid(), signal.SIGKILL)
                threading.Event().wait()  # nothing else is done until the signal is

    def pay(self, tag: str) -> None:
        """Note that a run is about to call its model."""
        with self._lock:  # not while this process dies: its record is written
            self._unpaid_tags.add(tag)

    def settle(self, tag: str) -> None:
        """Note that a run needs its model no more."""
        self._unpaid_tags.discard(tag)

    def _is_named_once(self, point: str) -> bool:
        self.doing.action = None
        client = money_client()
        return client.get(ONCE_KEY) == point.encode() and client.delete(ONCE_KEY) == 1

    def _leave_record(self, job_id: str | None) -> bool:
        """Return whether it may die now; then it must."""
        self.doing.action = None
        tags = [tag for leases in in_all_runtimes(process_leases) for tag in list(leases._held)]  # noqa: SLF001 - no production code asks
        held = {tag.rpartition(":")[0] for tag in tags}
        if job_id:
            held.add(job_id)
        death = Death(self.point or "", time.time(), tuple(sorted(held)), len(list(self._unpaid_tags)))
        if _own_client().rpush(DEATHS_KEY, json.dumps(asdict(death))) <= self._most_deaths:
            return True
        _own_client().ltrim(DEATHS_KEY, 0, self._most_deaths - 1)
        return False


_points = _Points()


def _own_client() -> redis.Redis:
    """Return the client of what all processes share, which nothing here is hooked into."""
    return _client_of(get_settings().home_url)


@functools.cache
def _client_of(url: str) -> redis.Redis:
    return connect(url)


def _around(
    owner: object, name: str, *, before: Callable[..., None] | None = None, after: Callable[..., None] | None = None
) -> None:
    """Call ``before(self, *args)``, and ``after(result, self, *args)`` where the method or function has not raised."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before:
            before(self, *args, **kwargs)
        result = method(self, *args, **kwargs)
        if after:
            after(result, self, *args, **kwargs)
        return result

    setattr(owner, name, wrapped)


def _telling(owner: type, name: str, action: str, job_id_of: Callable[..., str | None]) -> None:
    """Within this method, a reply that is about to be read is the middle of an action."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        _points.doing.action, _points.doing.job_id = action, job_id_of(*args, **kwargs)
        try:
            return method(self, *args, **kwargs)
        finally:
            _points.doing.action = None

    setattr(owner, name, wrapped)


def _before_reply(connection: Any, *args: Any, **kwargs: Any) -> None:
    del connection, args, kwargs
    action = getattr(_points.doing, "action", None)
    if action:
        _points.doing.action = None  # what asks Redis meanwhile reads replies too
        _points.reach(f"mid-{action}", _points.doing.job_id)
        _points.doing.action = action


def _first_of(queue: str) -> str | None:
    first = _client_of(jobs_url()).zrange(f"dspy:v1:queue:{queue}", 0, 0)
    return first[0].decode() if first else None


def _heard(transport: Any, message: Any, queue: str) -> None:
    del transport
    if message == BELL and _points.point in {"after-bell", None}:
        _points.reach("after-bell", _first_of(queue) if _points.point else None)


def _began(may_begin: bool, leases: Any, tag: str) -> None:
    del leases
    if may_begin:
        _points.reach("after-begin")
        _points.doing.tag = tag


def _claimed(claim: Any, claims: Any, request: Any, task_id: str, **_: Any) -> None:
    del claims, request
    if claim.verdict == "claim":
        _points.reach("after-claim", task_id)


def _locked(owner: type, name: str, lock: threading.RLock) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        with lock:
            return method(self, *args, **kwargs)

    setattr(owner, name, wrapped)


def _install() -> None:
    reach = _points.reach
    _telling(Records, "put", "put", lambda job: job.id)
    _telling(Claims, "ask", "put", lambda _, job: job.id)
    _telling(
        Records, "take_many", "take", lambda queue, *_, **__: _first_of(queue) if _points.point == "mid-take" else None
    )
    _telling(Records, "finish", "finish", lambda tag: tag.rpartition(":")[0])
    _telling(Records, "renew", "renew", lambda *_: None)
    _telling(Records, "sweep", "sweep", lambda *_, **__: None)
    _telling(Claims, "answer", "store", lambda _, run, __: run.task_id)
    _around(Claims, "claim", after=_claimed)
    _around(Transport, "_deliver", before=_heard)
    _around(Leases, "take_many", after=lambda taken, *_, **__: taken and reach("after-take"))
    _locked(Leases, "take_many", _points.taking)
    _around(Leases, "begin", after=_began)
    _around(Claims, "answer", before=lambda *_: reach("before-store"), after=_stored)
    _around(PredictionBackend, "_chord_publish_claim_expires", before=lambda *_: reach("mid-chord"))
    _around(Leases, "finish", before=lambda *_: reach("before-ack"), after=lambda *arguments: _finished(arguments[-1]))
    _around(Records, "sweep", after=lambda *_, **__: reach("after-sweep"))
    _around(redis.connection.AbstractConnection, "read_response", before=_before_reply)
    _around(wire, "_read_replies", before=_before_reply)
    if "celery" in sys.argv[0]:
        from dspyq.programs.runner import Runner

        _around(Runner, "run", before=lambda *_: _points.pay(_points.doing.tag))


def _stored(is_stored: bool, claims: Any, request: Any, run: Any, stored: Any) -> None:
    del is_stored, claims, request, stored
    _points.settle(f"{run.task_id}:{run.fence}")
    _points.reach("after-store")


def _finished(tag: str) -> None:
    _points.settle(tag)
    _points.reach("after-finish", tag.rpartition(":")[0])


def _set_clock_ahead(seconds: float) -> None:
    """Let every module here see another wall clock; the host's, and Redis's, stay."""
    true_time, true_datetime = time.time, datetime.datetime

    class ShiftedDatetime(true_datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return true_datetime.now(tz) + datetime.timedelta(seconds=seconds)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + seconds
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in {"celery", "kombu", "dspyq", "vine"}:
            for attribute, replacement in (("datetime", ShiftedDatetime), ("time", time.time)):
                if getattr(module, attribute, None) in (true_datetime, true_time):
                    setattr(module, attribute, replacement)


if _points.dies_once or _points.point:
    _install()
if ahead := os.environ.get("TEST_CLOCK_AHEAD_SECONDS"):
    _set_clock_ahead(float(ahead))
