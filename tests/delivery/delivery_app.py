"""A throwaway Celery app on the transport: plain tasks, which note in Redis what they did.

Workers configure it from ``DSPYQ_REDIS_URL``; the fixture ``tasks`` configures it for the test's own process.
"""

from __future__ import annotations

import os
import time
from typing import Any

import redis
from celery import Celery, signals
from celery.exceptions import Reject

from dspyq.delivery.beat import process_beat

QUEUE = "plain"

app = Celery("delivery_app", set_as_current=False, task_cls="dspyq.delivery.task:DeliveredTask")
app.conf.update(
    broker_transport="dspyq.delivery.transport:Transport",
    broker_connection_retry_on_startup=True,
    broker_transport_options={"max_connections": 100},
    task_acks_late=True,
    task_default_queue=QUEUE,
    worker_pool="threads",
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
)


def configure(redis_url: str) -> None:
    """Have the app use this Redis for everything."""
    app.conf.update(broker_url=redis_url, result_backend=redis_url)


if "DSPYQ_REDIS_URL" in os.environ:
    configure(os.environ["DSPYQ_REDIS_URL"])


class LeakedError(BaseException):
    """Celery's threads pool neither logs nor acknowledges a task that ends like this."""


@signals.worker_ready.connect(weak=False)
def _begin(**_: Any) -> None:
    process_beat().start()


@signals.worker_shutdown.connect(weak=False)
def _end(**_: Any) -> None:
    process_beat().stop()


def _note(event: str, text: str) -> None:
    client: redis.Redis = redis.Redis.from_url(app.conf.broker_url)
    client.rpush(event, text)
    client.close()


@app.task(name="work")
def work(text: str, seconds: float = 0.0) -> str:
    """Note that it began, and in which process, and after a while that it ended."""
    _note("began", text)
    _note("processes", str(os.getpid()))  # last, for it is what tests wait for before they kill
    time.sleep(seconds)
    _note("ended", text)
    return text


@app.task(name="work_until_released", bind=True)
def work_until_released(self: Any, text: str) -> str:
    """Note as ``work`` does, and end once the test pushes to ``release first``, of a repeated run ``release again``."""
    _note("began", text)
    _note("processes", str(os.getpid()))
    client: redis.Redis = redis.Redis.from_url(app.conf.broker_url)
    client.blpop(["release again" if self.request.delivery_info["redelivered"] else "release first"])
    client.close()
    _note("ended", text)
    return text


@app.task(name="add")
def add(first: int, second: int) -> int:
    return first + second


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="retry_twice", bind=True, max_retries=2)
def retry_twice(self: Any, countdown: float) -> int:
    retries: int = self.request.retries
    if retries < self.max_retries:
        raise self.retry(countdown=countdown)
    return retries


@app.task(name="replace_after_retry", bind=True)
def replace_after_retry(self: Any, text: str) -> Any:
    if not self.request.retries:
        raise self.retry(countdown=0)
    return self.replace(work.s(text))


@app.task(name="reject_once", bind=True)
def reject_once(self: Any, text: str, *, requeue: bool) -> str:
    _note("began", text)
    if not self.request.delivery_info["redelivered"]:
        raise Reject(text, requeue=requeue)
    return text


@app.task(name="leak_once", bind=True)
def leak_once(self: Any, text: str) -> str:
    _note("began", text)
    if not self.request.delivery_info["redelivered"]:
        raise LeakedError
    return text
