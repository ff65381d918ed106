"""dramatiq on Redis, with its result backend and an actor that asks the model."""

from __future__ import annotations

import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends.redis import RedisBackend


def _client() -> redis.Redis:
    # redis-py's own bound of 100 connections would make half of the threads fail.
    connections = 4 * int(os.environ["BENCHMARK_CONCURRENCY"])
    client: redis.Redis = redis.Redis.from_url(os.environ["PLAIN_REDIS_URL"], max_connections=connections)
    return client


backend = RedisBackend(client=_client())
broker = RedisBroker(client=_client())
broker.add_middleware(Results(backend=backend))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def answer(question: str) -> dict[str, str]:
    """Answer a question."""
    from benchmarks.subjects import program  # noqa: PLC0415 - only workers load DSPy

    return program.answer(question)
