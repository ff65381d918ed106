"""arq on Redis, with a job that asks the model in the worker's event loop: no threads, as arq is meant to be used."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool

_CONCURRENCY = int(os.environ["BENCHMARK_CONCURRENCY"])


def connect() -> ArqRedis:
    """Return arq's client; redis-py's own bound of 100 connections would make half of the jobs fail."""
    return ArqRedis(ConnectionPool.from_url(os.environ["PLAIN_REDIS_URL"], max_connections=4 * _CONCURRENCY))


async def answer(context: dict[str, Any], question: str) -> dict[str, str]:
    """Answer a question."""
    del context
    from benchmarks.subjects import program  # noqa: PLC0415 - only workers load DSPy

    return await program.answer_in_event_loop(question)


class WorkerSettings:
    """What ``arq benchmarks.subjects.arq_worker.WorkerSettings`` runs."""

    functions: ClassVar = [answer]
    redis_pool = connect()
    max_jobs = _CONCURRENCY
