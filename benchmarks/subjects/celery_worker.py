"""Plain Celery: the app of the tests, an experienced user's, with a task that asks the model.

Its broker and backend are Celery's own on Redis as they come, subscription to each result included.
"""

from __future__ import annotations

import os

from tests.support.plain_app import app

__all__ = ["answer", "app"]

_CONNECTIONS = 4 * int(os.environ["BENCHMARK_CONCURRENCY"])
# redis-py's own bound of 100 would make half of the threads fail.
app.conf.update(
    redis_max_connections=_CONNECTIONS,
    broker_transport_options={"max_connections": _CONNECTIONS},
)


@app.task(name="plain.answer")
def answer(question: str) -> dict[str, str]:
    """Answer a question."""
    from benchmarks.subjects import program  # noqa: PLC0415 - only workers load DSPy

    return program.answer(question)
