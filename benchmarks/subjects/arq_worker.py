"""arq on Redis, with a job that asks the model in one of two hundred threads.

Awaiting DSPy in the event loop instead costs arq one to three percent of its speed, so this is the fairer of the two.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from arq.connections import ArqRedis
from redis.asyncio import ConnectionPool

_CONCURRENCY = int(os.environ["BENCHMARK_CONCURRENCY"])
_threads = ThreadPoolExecutor(_CONCURRENCY)


def connect() -> ArqRedis:
    """Return arq's client; redis-py's own bound of 100 connections would make half of the jobs fail."""
    return ArqRedis(ConnectionPool.from_url(os.environ["PLAIN_REDIS_URL"], max_connections=4 * _CONCURRENCY))


async def answer(context: dict[str, Any], question: str) -> dict[str, str]:
    """Answer a question."""
    del context
    from benchmarks.subjects import program  # noqa: PLC0415 - only workers load DSPy

    return await asyncio.get_running_loop().run_in_executor(_threads, program.answer, question)


class WorkerSettings:
    """The settings that ``arq benchmarks.subjects.arq_worker.WorkerSettings`` runs."""

    functions: ClassVar = [answer]
    redis_pool = connect()
    max_jobs = _CONCURRENCY
