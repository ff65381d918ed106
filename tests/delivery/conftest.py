"""Fixtures of the delivery's tests: records and leases over the run's Redis, and plain Celery tasks and workers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import redis
from kombu import Connection

from dspyq.delivery.leases import Leases
from dspyq.delivery.records import QueuedJob, Records
from tests.delivery import delivery_app
from tests.delivery.consuming import connect
from tests.support.beats import add_beat, beat_of
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

#: Of the leases in the workers' tests: long enough for a beat on a busy machine.
LEASE_SECONDS = 2.0


@pytest.fixture
def jobs_redis(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the jobs' Redis that replies in text."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def make_records(redis_server: RedisServer) -> Callable[[], Records]:
    """Make records over a client of their own."""
    return lambda: Records(redis_server.client(decode_responses=False))


@pytest.fixture
def records(make_records: Callable[[], Records]) -> Records:
    return make_records()


@pytest.fixture
def make_leases(make_records: Callable[[], Records]) -> Iterator[Callable[..., Leases]]:
    """Make what a process would hold: ``make_leases(lease_seconds=0.2)``. Their beats end with the test."""
    made: list[Leases] = []

    def make(lease_seconds: float = 30.0, *, beat_records: Records | None = None) -> Leases:
        made.append(Leases(make_records(), lease_seconds))
        add_beat(made[-1], beat_records or make_records())
        return made[-1]

    yield make
    for leases in made:
        beat_of(leases).stop()


@pytest.fixture
def leases(make_leases: Callable[..., Leases], monkeypatch: pytest.MonkeyPatch) -> Leases:
    """The leases of the transport in the test's own process; it does not beat by itself."""
    leases = make_leases()
    monkeypatch.setattr("dspyq.delivery.transport.process_leases", lambda: leases)
    return leases


@pytest.fixture
def tasks(leases: Leases, redis_server: RedisServer) -> ModuleType:
    """The throwaway app's tasks, to be sent from the test's own process."""
    del leases  # what the transport puts through
    delivery_app.configure(redis_server.url)
    return delivery_app


@pytest.fixture(scope="module")
def make_worker(
    session_redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Worker]]:
    """Start a worker of the throwaway app: ``make_worker("-P", "solo")``; its ``ready()`` waits for it."""
    settings = tmp_path_factory.mktemp("delivery") / "dspyq.toml"
    settings.write_text("")
    env = {
        "DSPYQ_CONFIG": str(settings),
        "DSPYQ_REDIS_URL": session_redis_server.url,
        "DSPYQ_DELIVERY__VISIBILITY_TIMEOUT_SECONDS": str(LEASE_SECONDS),
        **{name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
    }
    started: list[Worker] = []

    def make(*arguments: str) -> Worker:
        options = ["-c", "4", "--without-mingle", "--without-gossip", *arguments]
        started.append(Worker(env, application=delivery_app.__name__, arguments=options))
        return started[-1]

    yield make
    for worker in started:
        worker.kill()
        worker.close()


@pytest.fixture
def job() -> Callable[..., QueuedJob]:
    """Make a job of queue "q": ``job("id", priority=3)``."""

    def make(job_id: str | None = None, **fields: object) -> QueuedJob:
        return QueuedJob(**{"id": job_id or uuid.uuid4().hex, "message": "{}", "queue": "q", **fields})

    return make


@pytest.fixture
def connection(tasks: ModuleType) -> Iterator[Connection]:
    with connect(tasks) as connection:
        yield connection
