"""A plain Celery app on Redis: it shows that the harness works without dspyq, and is what benchmarks compare with.

``PLAIN_REDIS_URL`` names the Redis. Configured as an experienced user would: acknowledged late, no prefetch beyond
one a thread, results kept an hour.
"""

from __future__ import annotations

import os
import time

from celery import Celery

_REDIS_URL = os.environ.get("PLAIN_REDIS_URL", "redis://127.0.0.1:6379/0")

app = Celery("plain", broker=_REDIS_URL, backend=_REDIS_URL, set_as_current=False)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)


@app.task(name="plain.echo")
def echo(question: str) -> str:
    """Answer at once, as the endpoint does."""
    return f"echo:{question}"


@app.task(name="plain.sleep")
def sleep(seconds: float) -> float:
    """Take a while."""
    time.sleep(seconds)
    return seconds
